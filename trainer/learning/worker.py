"""One of several processes that learn together; torchrun starts it.

It reads a task, learns, and tells its parent what happens, a line of JSON each, on standard output. Whatever
libraries print goes to standard error.
"""

import json
import os
import select
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

from pydantic import TypeAdapter

from registry.canonical import Document
from registry.errors import TenonError
from trainer.datasets.rows import SHAPES
from trainer.learning.job import Job
from trainer.methods import METHODS
from trainer.recipes.lora import LoraSettings
from trainer.recipes.methods import MethodName, Settings
from trainer.scale import Scale
from trainer.shortages import named_shortages
from trainer.trackers import Tracker

_LINE: Final = 3500
"""Characters of an error. Two processes may write at once, and a pipe keeps 4,096 bytes in one piece."""


class Task(Document):
    """What a Job holds of the methods that learn together, as a file."""

    method: MethodName
    settings: Settings
    rows: tuple[dict[str, Any], ...]
    file: str
    base_folder: str
    lora: LoraSettings
    seed: int
    out: str
    scratch: str
    snapshot_every: float
    start: str | None
    trackers: tuple[Tracker, ...]
    tracking: str | None
    processes: int
    sharded: bool

    @classmethod
    def of(cls, method: MethodName, job: Job[Any, Any]) -> "Task":
        assert not job.rewards
        assert job.teacher is None
        return cls(
            method=method,
            settings=job.settings,
            rows=tuple(_rows(method).dump_python(row, mode="json") for row in job.rows),
            file=job.file,
            base_folder=str(job.base_folder),
            lora=job.lora,
            seed=job.seed,
            out=str(job.out),
            scratch=str(job.scratch),
            snapshot_every=job.snapshot_every,
            start=None if job.start is None else str(job.start),
            trackers=job.trackers,
            tracking=None if job.tracking is None else str(job.tracking),
            processes=job.scale.processes,
            sharded=job.scale.sharded,
        )

    def job(self, parent: "Parent | None") -> Job[Any, Any]:
        """``parent`` hears of each step and note."""
        job: Job[Any, Any] = Job(
            settings=self.settings,
            rows=tuple(map(_rows(self.method).validate_python, self.rows)),
            file=self.file,
            base_folder=Path(self.base_folder),
            lora=self.lora,
            seed=self.seed,
            out=Path(self.out),
            scratch=Path(self.scratch),
            snapshot_every=self.snapshot_every,
            start=None if self.start is None else Path(self.start),
            scale=Scale(self.processes, self.sharded),
            trackers=self.trackers,
            tracking=None if self.tracking is None else Path(self.tracking),
        )
        return job if parent is None else replace(job, on_step=parent.step, note=parent.note)


def _rows(method: MethodName) -> TypeAdapter[Any]:
    return TypeAdapter(SHAPES[METHODS[method].shape])


class Parent:
    """The process that started this one, at the other end of a pipe."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def follow(self) -> None:
        """End when it ends, however that happens: nobody would hear of what is learned, and the run folder's
        lock died with it."""
        threading.Thread(target=_wait_for_end, args=(self._stream.fileno(),), daemon=True).start()

    def step(self, step: int, figures: dict[str, float]) -> None:
        self.tell({"step": step, "figures": figures})

    def note(self, text: str) -> None:
        self.tell({"note": text[:_LINE]})

    def tell(self, what: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(what) + "\n")
        self._stream.flush()


def _wait_for_end(pipe: int) -> None:
    """Until nobody can read ``pipe`` any more: then poll reports an error, which need not be asked for."""
    watched = select.poll()
    watched.register(pipe, 0)
    watched.poll()
    os._exit(1)


def main(file: Path) -> None:
    parent = Parent(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    parent.follow()
    task = Task.model_validate_json(file.read_bytes())
    try:
        with named_shortages(task.method):
            _learn(task, parent)
    except TenonError as error:
        hint = None if error.advice is None else error.advice[:_LINE]
        parent.tell({"failed": {"code": error.code, "message": error.message[:_LINE], "hint": hint}})
        sys.exit(1)


def _learn(task: Task, parent: Parent) -> None:
    from trainer.learning import together
    from trainer.learning.methods import LEARN

    together.join()
    learned = LEARN[task.method](task.job(parent if together.leads() else None))
    proofs = together.gathered(learned.proof)
    if together.leads():
        parent.tell({"proof": _joint(proofs)})
    # Nobody ends before that is told: gloo's threads sometimes abort a process that ends (two of 14 with and
    # four of 12 without destroy_process_group, torch 2.13), and torchrun then ends the others.
    together.meet()


def _joint(proofs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each process proved its own part: counts stand side by side, since a row may be in several parts."""
    return {
        key: [proof[key] for proof in proofs] if isinstance(value, int) else value
        for key, value in proofs[0].items()
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
