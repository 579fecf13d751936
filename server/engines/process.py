"""The vLLM child: started in its own process group, watched, and always stopped for good."""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from server.engines import guardian
from server.engines.errors import EngineStartFailed
from server.engines.output import LARGEST, keep_small

_POLL = 0.05
"""Seconds between looks at the child: a ``waitpid`` costs a microsecond, and needs no watcher of the loop."""
_LOG_EVERY = 20
"""Polls between two looks at the size of the log."""
_TAIL_BYTES = 64 * 1024


class EngineProcess:
    """One life of one engine. Not reusable: a restart is a new object.

    The child sits below :mod:`server.engines.guardian`, so it also ends when this process is killed. The
    sockets between its processes lie in a folder that only this user can enter, and that goes with them:
    vLLM by itself puts them beside everybody's in /tmp, and leaves them there when it is killed.
    """

    def __init__(
        self,
        *,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        grace: float = 20.0,
        largest: int = LARGEST,
    ) -> None:
        """``log`` is appended to, and begun anew above ``largest`` bytes: at the start, and while somebody
        waits for the end (:meth:`wait`). ``grace``: seconds between SIGTERM and SIGKILL."""
        self._argv = tuple(argv)
        self._environment = dict(environment)
        self._log = log
        self._grace = grace
        self._largest = largest
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._sockets = ""

    @property
    def pid(self) -> int | None:
        """Of the guardian, which leads the process group; None before the start."""
        return None if self._child is None else self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Returns at once; raises EngineStartFailed when the program cannot be started at all."""
        if self._child is not None:
            raise RuntimeError("an EngineProcess is started once")
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            keep_small(self._log, largest=self._largest)
            sink = self._log.open("ab")
        except OSError as error:
            raise EngineStartFailed(f"the engine's log cannot be written: {error.strerror}") from None
        with sink:
            try:
                self._sockets = tempfile.mkdtemp(prefix="tenon-vllm-")
            except OSError as error:
                raise EngineStartFailed(f"no temporary folder can be made: {error.strerror}") from None
            self._log_start = sink.tell()
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-I", guardian.__file__, str(self._grace), *self._argv],
                    env=self._environment | {"VLLM_RPC_BASE_PATH": self._sockets},
                    stdin=subprocess.PIPE,  # never written: its end tells the guardian that we are gone
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                shutil.rmtree(self._sockets, ignore_errors=True)
                raise EngineStartFailed(f"the engine could not be started: {error.strerror}") from None

    async def wait(self) -> int:
        """The exit status, once the child has ended."""
        if self._child is None:
            raise RuntimeError("not started")
        for poll in itertools.count(1):  # a waitpid raises no event
            if (status := self._child.poll()) is not None:
                return status
            await asyncio.sleep(_POLL)
            if poll % _LOG_EVERY == 0 and await asyncio.to_thread(
                keep_small, self._log, largest=self._largest
            ):
                self._log_start = 0
        raise AssertionError("it counts for ever")

    async def wait_ready(self, answers: Callable[[], Awaitable[bool]], *, limit: float) -> None:
        """Until ``answers()`` is true. Raises EngineStartFailed, with the end of the log, when the child
        ends first or ``limit`` seconds pass; stopping it stays with the caller."""
        try:
            async with asyncio.timeout(limit):
                while not await answers():
                    if not self.running:
                        raise self._failed(f"the engine ended with status {await self.wait()} at start")
                    await asyncio.sleep(4 * _POLL)
        except TimeoutError:
            raise self._failed(f"the engine was not ready after {limit:g} s") from None

    async def stop(self) -> None:
        """SIGTERM, ``grace`` seconds, SIGKILL of the whole group. Returns when the child is gone; harmless
        when it already is. Finishes even if the caller is cancelled meanwhile."""
        if self._child is None:
            return
        ending = asyncio.ensure_future(self._stop(self._child))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise

    def kill(self) -> None:
        """SIGKILL to the whole group, now: the last resort, and what an ``atexit`` may call."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._tidy(self._child)

    def tail(self, lines: int = 15) -> str:
        """The last lines of this life's log."""
        with self._log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            start = self._log_start if self._log_start <= size else 0  # begun anew meanwhile
            stream.seek(max(start, size - _TAIL_BYTES))
            return "\n".join(stream.read().decode("utf-8", "replace").splitlines()[-lines:])

    def _failed(self, what: str) -> EngineStartFailed:
        tail = self.tail()
        return EngineStartFailed(f"{what}; its log ends with:\n{tail}" if tail else what, log=tail)

    async def _stop(self, child: "subprocess.Popen[bytes]") -> None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()  # the guardian passes it on, waits and kills
        try:
            async with asyncio.timeout(self._grace + 5):
                await self.wait()
        except TimeoutError:
            pass
        if child.poll() is None or child.returncode < 0:
            # The guardian hangs, or was itself killed and left vLLM behind.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        await self.wait()
        self._tidy(child)

    def _tidy(self, child: "subprocess.Popen[bytes]") -> None:
        if child.stdin is not None:
            child.stdin.close()
        shutil.rmtree(self._sockets, ignore_errors=True)
