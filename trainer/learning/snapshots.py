"""Picking a killed training up where it was: checkpoints of transformers, each marked once it is whole."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from registry.digests import Digest
from trainer.learning import together

SNAPSHOTS: Final = "snapshots"
_MARK: Final = "whole.json"


class Snapshots:
    """A snapshot without its mark was cut off while it was written, and is not looked at."""

    def __init__(self, folder: Path, *, every: float, timer: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._every = every
        self._timer = timer
        self._last = timer()

    def latest(self) -> str | None:
        """The newest whole snapshot; everything else is removed."""
        found = sorted(self.folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
        whole = [path for path in found if _is_whole(path)]
        for path in found:
            if path not in whole[-1:]:
                shutil.rmtree(path)
        return str(whole[-1]) if whole else None

    def due(self) -> bool:
        """Whether the time for a snapshot has come; it comes again after as long."""
        if self._timer() - self._last < self._every:
            return False
        self._last = self._timer()
        return True

    def place(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def callback(self, *, stride: int = 1) -> Any:
        """Asks transformers' Trainer for a snapshot whenever the time has come, and marks it.

        ``stride``: only after a multiple of so many steps, where several steps learn from one draw of answers
        that no snapshot holds.
        """
        from transformers import TrainerCallback

        snapshots = self

        class Callback(TrainerCallback):  # type: ignore[misc]  # transformers is not followed, so it is Any
            def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
                between = state.global_step % stride == 0 and state.global_step < state.max_steps
                if between and together.agreed(snapshots.due):
                    control.should_save = True

            def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
                together.meet()  # every process writes the state of its random numbers
                if together.leads():
                    snapshots.mark(snapshots.place(state.global_step))

        return Callback()

    def mark(self, path: Path) -> None:
        """Call it whole, after everything else has been written."""
        digests = {file.name: Digest.of_file(file) for file in sorted(path.iterdir()) if file.is_file()}
        (path / _MARK).write_text(json.dumps(digests))
        self.latest()


def _is_whole(path: Path) -> bool:
    try:
        digests = json.loads((path / _MARK).read_text())
        return all(Digest.of_file(path / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False
