"""Process reward models: one score behind every step."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from tests.support.pinned import trajectory
from trainer.datasets import Case, Dataset, Message, Steps
from trainer.errors import DataInvalid, MaskBroken, RowTooLong
from trainer.evaluation.judges import judge_rows
from trainer.learning import process_reward
from trainer.learning.base import load_tokenizer
from trainer.learning.job import Job, Learned
from trainer.learning.scoring import LocalScorer, Scored, each_step, split_steps
from trainer.recipes import LoraSettings
from trainer.recipes.methods import ProcessRewardModelSettings
from trainer.recipes.sources import RewardSettings
from trainer.rewards import Answer, Resources, build, score

PROMPT = (Message("user", "Pay 5 EUR"),)
ROWS = tuple(
    Steps(
        (Message("user", f"Pay {number}.50 EUR"),),
        tuple("sum is right" if right else "xx wrong" for right in labels),
        labels,
        number + 1,
    )
    for number in range(16)
    for labels in ((number % 2 == 0, number % 3 == 0, True),)
)
SETTINGS = ProcessRewardModelSettings(steps=40, batch_size=4, learning_rate=0.01, max_length=120)


def learn(base_folder: Path, out: Path, **changes: Any) -> tuple[Learned, list[dict[str, float]]]:
    figures: list[dict[str, float]] = []
    job: Job[Any, Any] = Job(
        settings=SETTINGS, rows=ROWS, file="steps.jsonl", base_folder=base_folder,
        lora=LoraSettings(rank=4, alpha=8), seed=7, out=out / "raw", scratch=out / "scratch",
        on_step=lambda step, seen: figures.append(seen),
    )  # fmt: skip
    return process_reward.learn(replace(job, **changes)), figures


Run = tuple[Learned, list[dict[str, float]]]
LOSSES = [0.661275, 0.659162, 0.571319]


@pytest.fixture(scope="module")
def trained(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return learn(base_folder, tmp_path_factory.mktemp("steps"))


def test_it_learns_which_steps_are_wrong(trained: Run, base_folder: Path) -> None:
    learned, figures = trained
    assert [one["loss"] for one in figures[:3]] == trajectory(LOSSES, drift=0.01)
    judged = judge_rows(
        Dataset("steps", Digest.of(b""), ROWS),
        base_folder=base_folder,
        adapter_folder=learned.folder,
        separator="\n",
    )
    assert judged.metrics()["step_accuracy"].value > 0.95
    assert judged.metrics()["step_balanced"].value > judged.metrics(adapter=False)["step_balanced"].value
    assert judged.metrics()["first_error"].value > 0.9
    assert learned.proof["steps"] == 48
    assert learned.proof["wrong"] == sum(row.labels.count(False) for row in ROWS)
    assert json.loads((learned.folder / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"


def test_the_same_plan_gives_the_same_bytes(base_folder: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 3})
    folders = [learn(base_folder, tmp_path / name, settings=settings)[0].folder for name in "ab"]
    first, second = (Digest.of_file(folder / "adapter_model.safetensors") for folder in folders)
    assert first == second


@pytest.mark.parametrize(
    "steps",
    [
        ("one",),
        ("one", "two"),
        ("a: 5.", "b: 6.", "c"),
        ("ends with a space ", " begins with one"),
        ("Zoë zahlt 5 €", "北京 🙂", "naïve"),
    ],
)
@pytest.mark.parametrize("separator", ["\n", "\n\n", " ;; ", "ки"])
def test_a_step_is_scored_at_the_first_token_that_completes_it(
    base_folder: Path, steps: tuple[str, ...], separator: str
) -> None:
    tokenizer = load_tokenizer(base_folder)
    row = each_step(tokenizer, PROMPT, steps, separator)
    answer = tokenizer.decode(row.input_ids).split("assistant\n")[1]
    assert answer == separator.join(steps) + "<|im_end|>"
    assert len(row.places) == len(steps)
    assert row.places[-1] == len(row.input_ids) - 1
    text = ""
    for step, place in zip(steps[:-1], row.places, strict=False):
        text += step + separator
        assert text in tokenizer.decode(row.input_ids[: place + 1])
        assert text not in tokenizer.decode(row.input_ids[:place])


def test_a_step_does_not_see_what_follows(trained: Run, base_folder: Path) -> None:
    """A score of a half-written answer is worth something only if the rest cannot change it."""
    scorer = LocalScorer(base_folder, trained[0].folder)
    answers = [("sum is right", "sum is right"), ("sum is right", "xx wrong", "xx wrong")]
    rows = [each_step(scorer.tokenizer, PROMPT, steps, "\n") for steps in answers]
    first, second = (scorer.scores([row])[0] for row in rows)
    assert first[0] == pytest.approx(second[0], abs=1e-5)
    assert first[1] != pytest.approx(second[1], abs=1e-2)


def test_labels_that_stand_behind_other_steps_never_reach_a_step(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_early(*args: Any) -> Scored:
        row = each_step(*args)
        return replace(row, places=tuple(place - 1 for place in row.places))

    monkeypatch.setattr(process_reward, "each_step", one_early)
    with pytest.raises(MaskBroken, match="line"):
        learn(base_folder, tmp_path)
    assert not (tmp_path / "raw").exists()


def test_a_step_with_the_separator_in_it_is_refused_with_its_line(base_folder: Path, tmp_path: Path) -> None:
    broken = replace(ROWS[4], completions=("fine", "two\nlines", "a\nb"))
    with pytest.raises(DataInvalid) as caught:
        learn(base_folder, tmp_path, rows=(*ROWS[:4], broken))
    assert [str(fault) for fault in caught.value.faults] == [
        "steps.jsonl:5: step 2 has the separator '\\n' in it",
        "steps.jsonl:5: step 3 has the separator '\\n' in it",
    ]


def test_a_row_that_is_too_long_is_refused(base_folder: Path, tmp_path: Path) -> None:
    long = replace(ROWS[2], completions=("x " * 150, "b", "c"))
    with pytest.raises(RowTooLong, match=r"steps\.jsonl:3"):
        learn(base_folder, tmp_path, rows=(*ROWS[:2], long))


class _Given:
    """Scores as the test wants them."""

    def __init__(self, base_folder: Path, scores: list[tuple[float, ...]]) -> None:
        self.tokenizer = load_tokenizer(base_folder)
        self.given = scores

    def scores(self, rows: Sequence[Scored], *, adapter: bool, batch_size: int) -> list[tuple[float, ...]]:
        return self.given if adapter else [(1.0,) * len(row.places) for row in rows]


def test_what_is_measured_of_steps(base_folder: Path) -> None:
    rows = (
        Steps(PROMPT, ("a", "b", "c"), (True, False, False), 1),
        Steps(PROMPT, ("a", "b"), (True, True), 2),
        Steps(PROMPT, ("a", "b"), (False, True), 3),
    )
    scores = [(2.0, -1.0, 3.0), (1.0, 1.0), (1.0, -1.0)]
    judged = judge_rows(
        Dataset("steps", Digest.of(b""), rows),
        base_folder=base_folder,
        adapter_folder=base_folder,
        separator="\n",
        load=lambda base, adapter: _Given(base_folder, scores),
    )
    metrics = judged.metrics()
    assert metrics["step_accuracy"].value == pytest.approx(4 / 7)
    assert metrics["step_balanced"].value == pytest.approx((3 / 4 + 1 / 3) / 2)
    # The first error is found in the first row, rightly missed in the second, missed in the third.
    assert metrics["first_error"].value == pytest.approx(2 / 3)
    everything_right = judged.metrics(adapter=False)
    assert everything_right["step_balanced"].value == 0.5
    assert everything_right["first_error"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ("min", min),
        ("product", lambda values: values[0] * values[1]),
        ("mean", lambda values: sum(values) / 2),
        ("last", lambda values: values[1]),
    ],
)
def test_as_a_verifier_it_pools_the_steps(trained: Run, base_folder: Path, pooling: str, pool: Any) -> None:
    import math

    folder = trained[0].folder
    line = RewardSettings(verifier="process_reward_model", settings={"pooling": pooling})
    rewards = build([(line, Resources(base_folder=base_folder, adapter_folder=folder))])
    (scored,) = score(rewards, [Answer(Case("c", PROMPT, 1), "sum is right\n\nxx wrong")])
    scorer = LocalScorer(base_folder, folder)
    row = each_step(scorer.tokenizer, PROMPT, ("sum is right", "xx wrong"), "\n")
    steps = [1 / (1 + math.exp(-value)) for value in scorer.scores([row])[0]]
    assert scored.scores["process_reward_model"] == pytest.approx(pool(steps), abs=1e-5)


def test_steps_are_the_pieces_that_say_something() -> None:
    assert split_steps("a\n\nb\n", "\n") == ["a", "b"]
    assert split_steps("", "\n") == [""]
