"""Running a program that is not ours: bounded in time and output, and gone when its time is up."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LONGEST_OUTPUT: Final = 65_536
ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
"""Nothing of this process's own: keys live there."""


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    said: bytes
    complained: bytes


def run_program(argv: Sequence[str], data: bytes, *, seconds: float, folder: Path | None = None) -> Ended:
    """``data`` on standard input. Raises TimeoutError after killing it and everything it started in its
    process group; OSError when it cannot be started."""
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as said,
        tempfile.TemporaryFile() as complained,
    ):
        given.write(data)
        given.seek(0)
        process = subprocess.Popen(
            list(argv),
            stdin=given,
            stdout=said,
            stderr=complained,
            cwd=folder,
            env=dict(ENVIRONMENT),
            start_new_session=True,
            close_fds=True,
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"took more than {seconds:g} seconds") from None
        finally:
            _kill(process)
        said.seek(0)
        complained.seek(0)
        return Ended(code, said.read(LONGEST_OUTPUT), complained.read(LONGEST_OUTPUT))


def _kill(process: subprocess.Popen[bytes]) -> None:
    # The group outlives its leader when that left something running behind.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
