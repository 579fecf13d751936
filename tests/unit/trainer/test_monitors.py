"""Each alarm is raised by what it is for, once, and by nothing else."""

from pathlib import Path

import pytest

from trainer.alarms import alarms_in
from trainer.learning.monitors import Monitor
from trainer.rewards import Reward, each

CALM = {"reward": 0.5, "length": 50.0, "zero_variance": 0.2, "kl": 0.1, "valid_json": 1.0}
REWARDS = (
    Reward("policy", 1.0, each(lambda answer: 1.0)),
    Reward("polite", 0.0, each(lambda answer: 1.0)),
)


def watch(*steps: dict[str, float], file: Path | None = None) -> tuple[list[str], list[str]]:
    """(names of the alarms, notes) after these steps, each laid over a calm one."""
    notes: list[str] = []
    monitor = Monitor(REWARDS, notes.append, file=file)
    for number, step in enumerate(steps, 1):
        monitor.saw(number, CALM | step)
    return [alarm.name for alarm in monitor.alarms], notes


def test_a_calm_run_raises_nothing() -> None:
    assert watch(*[{}] * 30) == ([], [])


def test_groups_that_teach_nothing() -> None:
    silent = {"zero_variance": 0.9}
    assert watch(silent, silent, {}, silent, silent)[0] == []
    names, notes = watch({}, silent, silent, silent, silent, silent)
    assert names == ["zero_variance"]
    assert len(notes) == 1
    assert notes[0].startswith("step 4: ")


@pytest.mark.parametrize(("last", "way"), [(34.0, "32% shorter"), (66.0, "32% longer")])
def test_answers_that_drift_in_length(last: float, way: str) -> None:
    names, notes = watch(*[{}] * 3, *[{"length": last}] * 3)
    assert names == ["length_drift"]
    assert way in notes[0]
    assert watch(*[{}] * 3, *[{"length": 36.0}] * 3)[0] == []


def test_a_reward_that_rises_while_something_it_does_not_count_falls() -> None:
    hacked = [{"reward": 0.9, "reward.polite": 0.3}] * 3
    assert watch(*[{"reward.polite": 0.9}] * 3, *hacked)[0] == ["reward_hacking.polite"]
    broken = [{"reward": 0.9, "valid_json": 0.6}] * 3
    assert watch(*[{}] * 3, *broken)[0] == ["reward_hacking.valid_json"]
    falling_together = [{"reward": 0.2, "valid_json": 0.6}] * 3
    assert watch(*[{}] * 3, *falling_together)[0] == []


def test_a_counted_reward_may_fall() -> None:
    assert watch(*[{"reward.policy": 0.9}] * 3, *[{"reward": 0.9, "reward.policy": 0.2}] * 3)[0] == []


def test_a_model_that_leaves_its_reference() -> None:
    assert watch(*[{"kl": 1.5}] * 2, {})[0] == []
    assert watch(*[{"kl": 1.5}] * 3)[0] == ["kl_runaway"]


def test_a_run_that_is_picked_up_remembers_its_first_steps(tmp_path: Path) -> None:
    file = tmp_path / "scratch" / "monitored.jsonl"
    watch(*[{}] * 5, file=file)
    with file.open("a") as stream:
        stream.write('{"step": 6, "len')  # the crash
    notes: list[str] = []
    picked_up = Monitor(REWARDS, notes.append, file=file)
    for step in (5, 6, 7):  # step 5 is done again: its snapshot was older
        picked_up.saw(step, CALM | {"length": 20.0})
    assert [alarm.name for alarm in picked_up.alarms] == ["length_drift"]
    assert "step 6: answers became 40% shorter (50 -> 30 tokens)" in notes[0]
    assert len(file.read_text().splitlines()) == 7
    only_to_save = Monitor(REWARDS, notes.append, file=file)
    assert only_to_save.proof() == picked_up.proof()
    (alarm,) = alarms_in(picked_up.proof())
    assert str(alarm) == notes[0]
