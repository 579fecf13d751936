"""The processes that serve a workspace, and the file that says which they are."""

import contextlib
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Final

from registry.canonical import Document
from server.workspace import Workspace

SUPERVISOR: Final = "supervisor"
"""The role of whoever starts the others again: `tenon up` itself, or what it leaves behind with --detach."""
PATIENCE = 20.0
"""Seconds between SIGTERM and SIGKILL."""


class Process(Document):
    """One started process; ``born`` (clock ticks since boot) tells it from a later one with the same pid."""

    role: str
    pid: int
    born: int
    url: str
    log: str

    @property
    def kind(self) -> str:
        """``engine`` for ``engine-1``, too."""
        return self.role.partition("-")[0]

    @classmethod
    def own(cls, role: str, log: str = "") -> "Process":
        """The process that asks."""
        return cls(role=role, pid=os.getpid(), born=_born(os.getpid()) or 0, url="", log=log)

    def alive(self) -> bool:
        return _born(self.pid) == self.born


class Running(Document):
    """The content of ``up.json``: what `tenon up` started."""

    processes: tuple[Process, ...]

    def url(self, role: str) -> str:
        return next(process.url for process in self.processes if process.role == role)

    @property
    def engines(self) -> tuple[Process, ...]:
        return tuple(process for process in self.processes if process.kind == "engine")

    @property
    def supervised(self) -> tuple[Process, ...]:
        """All but who starts them again."""
        return tuple(process for process in self.processes if process.kind != SUPERVISOR)


def started(
    workspace: Workspace,
    role: str,
    url: str,
    arguments: list[str],
    environment: dict[str, str],
    *,
    reads: int | None = None,
) -> Process:
    log = workspace.logs / f"{role}.log"
    with log.open("ab") as sink:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *arguments],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
                if reads is None
                else (os.POSIX_SPAWN_DUP2, reads, 0),
                (os.POSIX_SPAWN_DUP2, sink.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, sink.fileno(), 2),
            ],
            setsid=True,  # a Ctrl-C at the terminal is ours to turn into an orderly stop
            setsigmask=[],  # whoever watches blocks the signals that it waits for
        )
    return Process(role=role, pid=pid, born=_born(pid) or 0, url=url, log=str(log))


def answer_of(process: Process) -> tuple[int, bytes]:
    """Whether it is ready, as it says itself; status 0 when it says nothing."""
    url = process.url + "/readyz"
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (our own loopback URL)
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, HTTPException):
        return 0, b""


def stop(processes: Sequence[Process], *, patience: float = PATIENCE) -> None:
    """The last one first; each gets ``patience`` seconds to end by itself."""
    for process in reversed(processes):
        if not process.alive():
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while process.alive() and time.monotonic() < deadline:
            reap(process.pid)
            time.sleep(0.05)
        if process.alive():
            with contextlib.suppress(ProcessLookupError):
                # `tenon up` in another terminal may share its group with whatever else runs there.
                (os.kill if process.kind == SUPERVISOR else os.killpg)(process.pid, signal.SIGKILL)
            reap(process.pid)


def reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # started by another process: init reaps it
        os.waitpid(pid, os.WNOHANG)


def _born(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def save(workspace: Workspace, state: Running) -> None:
    draft = workspace.stack.with_suffix(".new")
    draft.write_bytes(state.canonical())
    draft.replace(workspace.stack)


def tail(log: str, lines: int = 12) -> str:
    return "\n".join(Path(log).read_text(errors="replace").splitlines()[-lines:])
