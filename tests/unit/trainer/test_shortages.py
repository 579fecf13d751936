"""Memory or disk that runs out ends in a sentence that says what to lower, and in a folder to go on from."""

import errno
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_model import write_recipe
from trainer.errors import DiskFull, OutOfMemory, TrainingDiverged
from trainer.events import Event, StageFinished, StageStarted, ignore
from trainer.folder import EVALUATION, SAMPLES
from trainer.learning.methods import LEARN
from trainer.plan import Planned, make_plan
from trainer.recipes import load_recipe
from trainer.run import train
from trainer.shortages import named_shortages
from trainer.testing import InMemoryCatalog

NO_MACHINE_HAS = 2**62
"""Bytes: a quarter of the 64-bit address space."""


@pytest.fixture
def planned(catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path) -> Planned:
    recipe = load_recipe(write_recipe(tmp_path / "recipe"), overrides=["sft.steps=2"])
    return make_plan(recipe, catalog=catalog, base_folder=base_folder)


def test_a_disk_that_fills_up_leaves_finished_stages_and_nothing_half_written(
    planned: Planned, base_folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    full = place / f".{EVALUATION}.part"

    def sink(event: Event) -> None:
        if event == StageStarted("evaluate"):
            full.symlink_to("/dev/full")  # where every write ends with "no space left on device"

    with pytest.raises(DiskFull, match="no space left while sft was writing") as failed:
        train(planned, base_folder=base_folder, run_folder=place, sink=sink)
    assert "finished stages" in (failed.value.advice or "")
    assert sorted(path.stem for path in (place / "stages").iterdir()) == ["check", "learn", "package"]
    assert not (place / EVALUATION).exists()
    assert not (place / SAMPLES).exists()
    assert not (place / "done.json").exists()
    assert not [path for path in place.rglob("*.part") if path.is_file() or path.is_symlink()]

    seen: list[tuple[str, bool]] = []

    def again(event: Event) -> None:
        if isinstance(event, StageFinished):
            seen.append((event.stage, event.reused))

    train(planned, base_folder=base_folder, run_folder=place, sink=again)
    assert dict(seen) == {
        "check": True, "learn": True, "package": True, "evaluate": False, "fingerprint": False,
    }  # fmt: skip


def test_a_disk_that_is_full_while_learning_says_so(
    planned: Planned, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(job: Any) -> Any:
        Path("/dev/full").write_bytes(b"a snapshot")

    monkeypatch.setitem(LEARN, "sft", learn)
    with pytest.raises(DiskFull):
        train(planned, base_folder=base_folder, run_folder=tmp_path / "run", sink=ignore)
    assert not (tmp_path / "run" / "stages" / "learn.json").exists()


def test_memory_that_torch_cannot_get_names_the_methods_own_settings(
    planned: Planned, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def learn(job: Any) -> Any:
        return torch.empty(NO_MACHINE_HAS, dtype=torch.uint8)

    monkeypatch.setitem(LEARN, "sft", learn)
    with pytest.raises(OutOfMemory) as failed:
        train(planned, base_folder=base_folder, run_folder=tmp_path / "run", sink=ignore)
    hint = failed.value.advice or ""
    for setting in ("sft.batch_size", "sft.gradient_accumulation", "sft.max_length", "lora.quantization"):
        assert setting in hint
    assert not (tmp_path / "run" / "stages" / "learn.json").exists()


def test_pythons_own_and_a_gpus_shortage_are_the_same_error() -> None:
    for shortage in (MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")):
        with pytest.raises(OutOfMemory, match="dpo needs more memory") as failed, named_shortages("dpo"):
            raise shortage
        assert "dpo.batch_size" in (failed.value.advice or "")


@pytest.mark.parametrize(
    "other", [RuntimeError("shapes do not match"), OSError(errno.EACCES, "denied"), ValueError("no")]
)
def test_other_errors_stay_what_they_are(other: Exception) -> None:
    with pytest.raises(type(other)) as failed, named_shortages("sft"):
        raise other
    assert failed.value is other


def test_a_diverged_training_says_what_to_lower() -> None:
    advice = TrainingDiverged("step 3: the loss is nan").advice or ""
    assert "learning_rate" in advice
    assert "warmup_steps" in advice
