"""Starts again what ends of control plane, engines and router; they take up where they were killed.

In `tenon up` itself, or, with --detach, as ``python -m server.assembly.supervision WORKSPACE``, which is told
on its standard input how each role is started.
"""

import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from registry.errors import TenonError
from server.assembly import stack
from server.assembly.processes import SUPERVISOR, Process, Running, answer_of, reap, save
from server.assembly.stack import Launches
from server.errors import StartFailed
from server.workspace import Workspace, find

FIRST, LONGEST = 0.5, 30.0
"""Seconds before a role is started again; doubles with each of its deaths within WINDOW."""
WINDOW = 300.0
DEATHS = 6
"""Within WINDOW: it will not stay up, and somebody should look. The pauses before are 16 s together."""
_LOOK = 0.25
_log = logging.getLogger(__name__)
_STOPS: Final = {signal.SIGINT, signal.SIGTERM}

Tell = Callable[[str, str], None]
"""Called with (role, what has become of it)."""


class Deaths:
    """Of one role."""

    def __init__(self) -> None:
        self._at: list[float] = []

    def pause(self, now: float) -> float:
        """Seconds to wait after one more, at ``now``."""
        self._at = [*(at for at in self._at if now - at < WINDOW), now]
        return float(min(FIRST * 2 ** (len(self._at) - 1), LONGEST))

    @property
    def too_many(self) -> bool:
        return len(self._at) >= DEATHS


class Supervisor:
    def __init__(
        self,
        workspace: Workspace,
        launches: Launches,
        running: Running,
        *,
        tied: bool,
        tell: Tell,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """``tied``: what is started again ends with this process. ``ticks``: monotonic seconds."""
        self._workspace = workspace
        self._launches = {launch.role: launch for group in launches.together for launch in group}
        self._processes = {process.role: process for process in running.supervised}
        self._tied = tied
        self._tell = tell
        self._ticks = ticks
        self._deaths = {role: Deaths() for role in self._launches}
        self._due: dict[str, float] = {}
        """Roles that ended, and when each is started again."""
        self._coming: set[str] = set()
        """Started again and not yet seen to be ready."""
        self._save()

    def run(self) -> None:
        """Until SIGINT or SIGTERM; for the main thread. Raises StartFailed when a role does not stay up: the
        rest is the caller's to stop."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        while signal.sigtimedwait(_STOPS, _LOOK) is None:
            self.look()

    def look(self) -> None:
        """Once at every role. Raises StartFailed."""
        for role, process in list(self._processes.items()):
            reap(process.pid)
            if role in self._due:
                if self._ticks() >= self._due[role]:
                    self._start(role)
            elif not process.alive():
                self._ended(process)
            elif role in self._coming and answer_of(process)[0] == 200:
                self._coming.discard(role)
                self._tell(role, "ready again")

    def _ended(self, process: Process) -> None:
        role = process.role
        self._coming.discard(role)
        wait = self._deaths[role].pause(self._ticks())
        if self._deaths[role].too_many and not self._others_serve(role):
            raise StartFailed(
                f"{role} ended {DEATHS} times within {WINDOW:g} s, see {process.log}; everything is stopped"
            )
        self._due[role] = self._ticks() + wait
        self._tell(role, f"ended, see {process.log}; it is started again in {wait:g} s")

    def _others_serve(self, role: str) -> bool:
        """One engine of several may fail for as long as it likes: it takes no requests meanwhile."""
        return self._processes[role].kind == "engine" and any(
            other.kind == "engine" and other.role != role and other.alive()
            for other in self._processes.values()
        )

    def _start(self, role: str) -> None:
        try:
            self._processes[role] = stack.spawn(self._workspace, self._launches[role], tied=self._tied)
        except OSError as error:  # no process or no file to be had: that may pass
            self._due[role] = self._ticks() + LONGEST
            self._tell(role, f"cannot be started: {error.strerror}; next try in {LONGEST:g} s")
            return
        del self._due[role]
        self._coming.add(role)
        self._save()
        self._tell(role, "started again")

    def _save(self) -> None:
        """`tenon down` and `tenon doctor` go by it."""
        log = "" if self._tied else str(self._workspace.logs / f"{SUPERVISOR}.log")
        own = Process.own(SUPERVISOR, log)
        save(self._workspace, Running(processes=(*self._processes.values(), own)))


def main(root: Path) -> int:
    """Of a stack that is left running."""
    from server.assembly import logs

    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    logs.start("INFO", "text")
    workspace = find(root)
    launches = Launches.parse(sys.stdin.buffer.read())
    running = stack.running(workspace)
    if running is None:
        return 0
    supervisor = Supervisor(
        workspace,
        launches,
        running,
        tied=False,
        tell=lambda role, what: _log.warning("%s: %s", role, what),
    )
    try:
        supervisor.run()
    except TenonError as error:
        _log.error("%s: %s", error.code, error.message)
        stack.stop(workspace)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
