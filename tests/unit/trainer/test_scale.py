"""Several processes learn what one would have learned, and a dead one is told from a finished one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_model import write_recipe
from trainer.datasets import Conversation, Message, Pair
from trainer.datasets.messages import ToolCall
from trainer.errors import ScaleInvalid, TrainingDiverged, TrainingFailed, WorkerDied
from trainer.events import Event, StageAdvanced, ignore
from trainer.folder import METRICS
from trainer.learning.job import Job
from trainer.learning.spread import _error, _fate
from trainer.learning.worker import Task
from trainer.plan import Plan, Planned, make_plan
from trainer.recipes import LoraSettings, SftSettings, load_recipe
from trainer.recipes.methods import DpoSettings, GrpoSettings, MethodName
from trainer.run import train
from trainer.scale import Scale
from trainer.testing import InMemoryCatalog
from trainer.trackers import Tracker

TWO = Scale(2)


def planned_for(
    scale: Scale, folder: Path, catalog: InMemoryCatalog, base_folder: Path, *overrides: str
) -> Planned:
    recipe = load_recipe(write_recipe(folder), overrides=overrides)
    return make_plan(recipe, catalog=catalog, base_folder=base_folder, scale=scale)


def figures(run_folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_folder / METRICS).read_text().splitlines()]


def workers(run_folder: Path) -> list[int]:
    """Processes that learn for this run, torchrun itself left out."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        mine = any(word.startswith(str(run_folder)) for word in words)
        if mine and "torch.distributed.run" not in words:
            found.append(int(place.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_learn_from_the_rows_of_one_and_survive_the_death_of_either(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    one = planned_for(Scale(), tmp_path / "recipe", catalog, base_folder)
    two = planned_for(TWO, tmp_path / "recipe", catalog, base_folder)
    place, killed = tmp_path / "two", list[int]()

    def kill(event: Event) -> None:
        if isinstance(event, StageAdvanced) and event.stage == "learn" and event.done == 2:
            killed.append(max(workers(place)))
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(WorkerDied, match=r"worker [12] of 2 was killed by signal 9") as died:
        train(two, base_folder=base_folder, run_folder=place, sink=kill, snapshot_every=0)
    assert "last snapshot" in (died.value.advice or "")
    assert workers(place) == []
    steps: list[int] = []

    def again(event: Event) -> None:
        if isinstance(event, StageAdvanced) and event.stage == "learn":
            steps.append(event.done)

    train(two, base_folder=base_folder, run_folder=place, sink=again)
    assert steps[0] > 1  # picked up where it was
    assert steps[-1] == 6

    train(one, base_folder=base_folder, run_folder=tmp_path / "one", sink=ignore)
    alone, together = figures(tmp_path / "one"), figures(place)
    assert [step["step"] for step in together] == [1, 2, 3, 4, 5, 6]
    for mine, theirs in zip(alone, together, strict=True):
        # Equal but for the order of float32 sums; the gradient too, so the mean is over all rows.
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
        assert theirs["gradient_norm"] == pytest.approx(mine["gradient_norm"], rel=1e-3)
    proof = json.loads((place / "proof.json").read_text())
    assert proof["rows"] == [12, 12]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("method", "scale"), [("sft", Scale(2, sharded=True)), ("dpo", TWO)], ids=["sharded sft", "dpo"]
)
def test_what_two_processes_save_is_what_one_saves(
    base_folder: Path, tmp_path: Path, method: MethodName, scale: Scale
) -> None:
    """Sharded (FSDP over gloo), the saved tensors are whole. ``SPREAD`` says why dpo has no SFT term here."""
    from safetensors.numpy import load_file

    from trainer.learning.methods import LEARN
    from trainer.learning.spread import learn_together

    steps: dict[str, list[dict[str, float]]] = {"alone": [], "together": []}
    alone = LEARN[method](job_of(method, base_folder, tmp_path / "alone", Scale(), steps["alone"]))
    together = learn_together(
        method, job_of(method, base_folder, tmp_path / "together", scale, steps["together"])
    )
    losses = {name: [figures["loss"] for figures in seen] for name, seen in steps.items()}
    assert len(losses["alone"]) == 3
    assert losses["together"] == pytest.approx(losses["alone"], rel=1e-4)
    expected = load_file(alone.folder / "adapter_model.safetensors")
    saved = load_file(together.folder / "adapter_model.safetensors")
    assert saved.keys() == expected.keys()
    for name, tensor in expected.items():
        assert saved[name].shape == tensor.shape
        assert abs(saved[name] - tensor).max() < 1e-4, name


def job_of(
    method: MethodName, base_folder: Path, place: Path, scale: Scale, steps: list[dict[str, float]]
) -> Job[Any, Any]:
    settings = SftSettings(steps=3, batch_size=4, learning_rate=0.01, max_length=120)
    pairwise = DpoSettings(steps=3, batch_size=4, learning_rate=0.01, max_length=120, sft_weight=0.0)
    return Job(
        settings=settings if method == "sft" else pairwise,
        rows=CONVERSATIONS if method == "sft" else PAIRS, file="t", base_folder=base_folder,
        lora=LoraSettings(rank=4), seed=3, out=place / "raw", scratch=place / "scratch", scale=scale,
        on_step=lambda step, seen: steps.append(seen),
    )  # fmt: skip


PAIRS = tuple(
    Pair((Message("user", f"Pay {number}.50 EUR"),), f"{number}.50", f"{number} or so, EUR", number + 1)
    for number in range(12)
)
CONVERSATIONS = tuple(
    Conversation(
        (
            Message("user", f"Pay {number}.50 EUR to Norvik"),
            Message("assistant", f'{{"amount":"{number}.50"}}'),
        ),
        number + 1,
    )
    for number in range(12)
)


def test_a_worker_ends_with_its_parent() -> None:
    """Without writing a word: it may be loading a base for minutes."""
    code = """\
import os, time
from trainer.learning.worker import Parent
parent = Parent(os.fdopen(os.dup(1), "w"))
parent.follow()
print("there", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"there\n"
        assert worker.poll() is None
        worker.stdout.close()  # what the kernel does when a parent is killed
        assert worker.wait(20) == 1


def test_a_task_carries_the_whole_job(tmp_path: Path) -> None:
    call = Message("assistant", "", (ToolCall("rate", '{"b": 1, "a": 2}'),))
    rows = (
        Conversation(
            (Message("user", "x"), call, Message("tool", "1", name="rate"), Message("assistant", "y")),
            3, tools=({"type": "function", "function": {"name": "rate", "z": 1, "a": [None, 2.5]}},),
            weight=1.5, tags=("t:1",),
        ),
    )  # fmt: skip
    job: Job[Any, Any] = Job(
        settings=SftSettings(steps=3, warmup_steps=1, packing="bfd"), rows=rows, file="rows.jsonl",
        base_folder=tmp_path, lora=LoraSettings(rank_pattern={"v_proj": 4}), seed=9, out=tmp_path / "out",
        scratch=tmp_path / "scratch", snapshot_every=5, start=tmp_path / "start",
        scale=Scale(2, sharded=True), trackers=(Tracker.TENSORBOARD,), tracking=tmp_path / "tracking",
    )  # fmt: skip
    for method, given in (("sft", job), ("dpo", pairs_of(job))):
        again = Task.model_validate_json(Task.of(method, given).model_dump_json()).job(None)  # type: ignore[arg-type]
        for field in Job.__dataclass_fields__:
            if field not in ("on_step", "note"):
                assert getattr(again, field) == getattr(given, field), field


def pairs_of(job: Job[Any, Any]) -> Job[Any, Any]:
    from dataclasses import replace

    return replace(job, settings=DpoSettings(), rows=(Pair((Message("user", "x"),), "yes", "no", 1),))


def test_plans_know_their_processes_and_one_process_changes_no_plan(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    def plan(scale: Scale | None) -> Plan:
        recipe = load_recipe(write_recipe(tmp_path))
        return make_plan(recipe, catalog=catalog, base_folder=base_folder, scale=scale).plan

    assert plan(None).identity() == plan(Scale()).identity()
    plans = {plan(scale).identity() for scale in (Scale(), TWO, Scale(4), Scale(2, sharded=True))}
    assert len(plans) == 4
    for scale in (Scale(), TWO, Scale(2, sharded=True)):
        assert Scale.of(plan(scale).environment) == scale


@pytest.mark.parametrize(
    ("scale", "settings", "words"),
    [
        (Scale(3), SftSettings(batch_size=16), "sft.batch_size 16 does not divide by 3"),
        (Scale(0), SftSettings(), "at least one"),
        (Scale(1, sharded=True), SftSettings(), "only be sharded over several"),
        (Scale(2), GrpoSettings(), "grpo learns in one process"),
    ],
)
def test_what_does_not_split_is_refused(scale: Scale, settings: Any, words: str) -> None:
    with pytest.raises(ScaleInvalid, match=words):
        scale.check(settings.method, settings)


def test_a_workers_own_error_arrives_as_it_was() -> None:
    error = _error({"code": "training_diverged", "message": "step 3: NaN", "hint": "lower it"})
    assert isinstance(error, TrainingDiverged)
    assert (error.message, error.advice) == ("step 3: NaN", "lower it")
    other = _error({"code": "base_invalid", "message": "no weights", "hint": None})
    assert type(other) is TrainingFailed
    assert "base_invalid" in str(other)


def test_a_death_is_told_with_its_last_words() -> None:
    from collections import deque

    said = """\
[rank1]: Traceback (most recent call last):
[rank1]: ValueError: the disk is on fire
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  rank      : 1 (local_rank: 1)
  exitcode  : 1 (pid: 4711)
"""
    fate = _fate(deque(said.splitlines()), 2)
    assert fate == "worker 2 of 2 ended with code 1; last words: [rank1]: ValueError: the disk is on fire"
    assert _fate(deque(), 2) == "a worker died"
