"""A run on disk: what each stage wrote, with digests, so that a finished stage is never computed twice.

plan.json  audit.json  metrics.jsonl  proof.json  adapter/  evaluation.json  samples.json  fingerprint.json
stages/<stage>.json   one marker a stage, written after everything the stage wrote
done.json             the last thing written; without it there is no run
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Literal

from pydantic import Field

from registry import canonical
from registry.canonical import Document
from registry.digests import Digest
from registry.errors import InvalidDocument
from trainer.errors import RunBusy, RunChanged, RunNotFinished

PLAN: Final = "plan.json"
METRICS: Final = "metrics.jsonl"
AUDIT: Final = "audit.json"
PROOF: Final = "proof.json"
RAW: Final = "raw"
SCRATCH: Final = "scratch"
TRACKING: Final = "tracking"
"""What experiment trackers write: no part of the result, so no digest of it is kept."""
ADAPTER: Final = "adapter"
EVALUATION: Final = "evaluation.json"
SAMPLES: Final = "samples.json"
FINGERPRINT: Final = "fingerprint.json"
DONE: Final = "done.json"
_STAGES: Final = "stages"
_LOCK: Final = ".lock"


class Marker(Document):
    """Written when a stage (or the run) has finished; ``files`` are relative to the run folder."""

    kind: Literal["tenon.run/v1"] = "tenon.run/v1"
    plan: Digest
    files: dict[str, Digest]
    seconds: dict[str, float] = Field(default_factory=dict)


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one training may write here. Raises RunBusy. The lock dies with its holder."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / _LOCK).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunBusy("this run folder is in use") from None
            yield

    def clear(self) -> None:
        """Remove what an earlier run wrote, and nothing else that may lie here."""
        (self.path / DONE).unlink(missing_ok=True)
        for folder in (_STAGES, RAW, SCRATCH, ADAPTER, TRACKING):
            shutil.rmtree(self.path / folder, ignore_errors=True)
        for name in (PLAN, AUDIT, METRICS, PROOF, EVALUATION, SAMPLES, FINGERPRINT):
            (self.path / name).unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """The whole file or, after a crash, the one before."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)  # on a full disk, half a file is room that somebody needs
            raise

    def write_json(self, name: str, value: Any) -> None:
        """For people as well: indented, in the order given."""
        self.write(name, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def read_json(self, name: str) -> Any:
        return canonical.decode((self.path / name).read_bytes())

    def finish(self, stage: str, *, plan: Digest, names: Sequence[str], seconds: float) -> Marker:
        """Mark ``stage`` as finished; ``names`` are the files and folders it wrote."""
        marker = Marker(plan=plan, files=self._digests(names), seconds={stage: round(seconds, 3)})
        self.write(f"{_STAGES}/{stage}.json", marker.canonical())
        return marker

    def finished(self, stage: str, *, plan: Digest) -> Marker | None:
        """The stage's marker, if it was finished for this very plan and its files are still what it wrote."""
        marker = self._read(f"{_STAGES}/{stage}.json")
        return marker if marker is not None and marker.plan == plan and self._intact(marker) else None

    def complete(self, *, plan: Digest, stages: Mapping[str, Marker]) -> None:
        """Write ``done.json``: from now on this is a run, and needs neither scratch nor what PEFT saved."""
        files = {name: digest for marker in stages.values() for name, digest in marker.files.items()}
        kept = {name: digest for name, digest in files.items() if not name.startswith(f"{RAW}/")}
        seconds = {stage: spent for marker in stages.values() for stage, spent in marker.seconds.items()}
        marker = Marker(plan=plan, files={**kept, **self._digests([PLAN])}, seconds=seconds)
        self.write(DONE, marker.canonical())
        for folder in (RAW, SCRATCH):
            shutil.rmtree(self.path / folder, ignore_errors=True)

    def done(self) -> Marker:
        """Raises RunNotFinished, and RunChanged when a file is missing or not what the run wrote."""
        marker = self._read(DONE)
        if marker is None:
            raise RunNotFinished("there is no finished run in this folder")
        if not self._intact(marker):
            raise RunChanged("a file of this run is not what the run wrote")
        return marker

    def _read(self, name: str) -> Marker | None:
        try:
            return Marker.parse((self.path / name).read_bytes())
        except (OSError, InvalidDocument):
            return None

    def _intact(self, marker: Marker) -> bool:
        try:
            return all(Digest.of_file(self.path / name) == digest for name, digest in marker.files.items())
        except OSError:
            return False

    def _digests(self, names: Sequence[str]) -> dict[str, Digest]:
        found = [
            path for name in names for path in (self.path / name, *sorted((self.path / name).rglob("*")))
        ]
        return {
            path.relative_to(self.path).as_posix(): Digest.of_file(path) for path in found if path.is_file()
        }


class StepFigures:
    """``metrics.jsonl``, a line for each step, written while it is learned so that people can watch the file.

    A run that is picked up again repeats the steps after its last snapshot: their first lines are dropped.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._stream: IO[str] | None = None

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        if self._stream is None:
            kept = [line for line in self._lines() if json.loads(line)["step"] < step]
            self._folder.write(METRICS, "".join(kept).encode())
            self._stream = (self._folder.path / METRICS).open("a", encoding="utf-8")
        self._stream.write(json.dumps({"step": step, **figures}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """What was added is on the disk from now on."""
        if self._stream is not None:
            try:
                os.fsync(self._stream.fileno())
            finally:
                self._stream.close()

    def _lines(self) -> list[str]:
        try:
            text = (self._folder.path / METRICS).read_text(encoding="utf-8")
        except OSError:
            return []
        # A crash may leave half a line.
        return [line for line in text.splitlines(keepends=True) if line.endswith("}\n")]
