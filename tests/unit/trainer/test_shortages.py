"""Memory or disk that runs out ends in a sentence that says what to lower, and in a folder to go on from."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

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


SAVERS: Final = {
    "safetensors": "safetensors.torch.save_file({'a': torch.zeros(99999)}, place)",
    "torch": "torch.save(torch.zeros(99999), place)",
    "torch into a file": "torch.save(torch.zeros(99999), open(place, 'wb'))",
    "torch, its old format": "torch.save(torch.zeros(99999), place, _use_new_zipfile_serialization=False)",
    "plain": "open(place, 'wb').write(bytes(99999))",
}
_SAVE = """
import os, resource, sys
import safetensors.torch, torch
from trainer.errors import DiskFull
from trainer.shortages import named_shortages

place = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with named_shortages("sft"):
        exec(sys.argv[2])
except DiskFull as error:
    print(error.message, flush=True)
    os._exit(7)  # a file that could not be flushed complains once more when it is closed
"""


@pytest.mark.parametrize("saver", SAVERS)
def test_every_saver_that_meets_a_full_disk_or_a_limit_ends_in_the_same_error(
    saver: str, tmp_path: Path
) -> None:
    """In a process of its own: the limit is on files of the process, as a quota is on those of a user.

    Not into /dev/full: safetensors writes beside its target and renames, and would replace the device.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SAVE, str(tmp_path / "file"), SAVERS[saver]],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert "no space left while sft was writing (" in done.stdout


def test_what_a_full_disk_says_inside_other_libraries_errors_is_heard() -> None:
    """safetensors 0.8 and torch 2 as they say it; neither error carries the operating system's number."""
    from safetensors import SafetensorError

    full: tuple[Exception, ...] = (
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
        RuntimeError("write(): fd 3 failed with No space left on device"),
    )
    for shortage in full:
        with pytest.raises(DiskFull), named_shortages("sft"):
            raise shortage
    damaged = SafetensorError("Error while deserializing header: header too small")
    with pytest.raises(SafetensorError), named_shortages("sft"):
        raise damaged


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_quota_is_a_full_disk(number: int) -> None:
    with pytest.raises(DiskFull) as failed, named_shortages("sft"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number).lower() in failed.value.message


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
