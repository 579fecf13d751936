"""What a watcher reads while a recipe is trained."""

import pytest

from server.cli.progress import bars, columns
from trainer.events import Note, StageAdvanced, StageFinished, StageStarted


def test_without_a_terminal_there_is_a_line_a_stage_and_a_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with bars("bank_a/assistant") as sink:
        sink(StageStarted("learn"))
        for step in range(1, 41):
            figures = {"loss": 2 - step / 40, "learning_rate": 1e-3, "gradient_norm": 0.5}
            sink(StageAdvanced("learn", step, 40, figures))
        sink(Note("learn", "groups all agree"))
        sink(StageFinished("learn", 12.34))
        sink(StageAdvanced("evaluate", 3, 6))
        sink(StageFinished("evaluate", 0.0, reused=True))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "bank_a/assistant: learn …"
    assert [line.split()[2] for line in lines[1:11]] == [f"{step}/40" for step in range(4, 41, 4)]
    assert lines[1] == "bank_a/assistant: learn 4/40  loss 1.9"
    assert lines[11:] == [
        "bank_a/assistant: groups all agree",
        "bank_a/assistant: learn done in 12.3 s",
        "bank_a/assistant: evaluate reused",
    ]


def test_on_a_terminal_there_are_bars_and_the_latest_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with bars("bank_a/assistant") as sink:
        for step in range(1, 13):
            sink(StageAdvanced("learn", step, 12, {"loss": step / 100, "reward": float(step)}))
        sink(Note("learn", "[bold]not markup[/bold]"))
        sink(StageFinished("learn", 1.0))
    out, err = capsys.readouterr()
    assert out == ""
    assert "bank_a/assistant: learn" in err
    assert "12/12" in err
    assert "[bold]not markup[/bold]" in err
    last = err[err.rindex("12/12") :]
    assert "0.12" in last
    assert "0.05" in last
    assert "0.04" not in last  # eight rows, no more


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        (["learning_rate", "gradient_norm", "loss"], ["loss"]),
        (["kl", "entropy", "length", "reward", "loss"], ["loss", "reward", "kl", "entropy", "length"]),
        (["reward.a", "reward.b", "reward", "reward_std", "reward.c", "loss", "kl"],
         ["loss", "reward.a", "reward.b", "reward", "reward_std", "reward.c"]),
        (["rewards/accuracies", "rewards/margins"], ["rewards/accuracies", "rewards/margins"]),
        ([], []),
    ],
)  # fmt: skip
def test_the_figures_that_people_look_at_come_first_and_once(figures: list[str], shown: list[str]) -> None:
    assert columns(dict.fromkeys(figures, 0.0)) == shown
