"""Which engines' agents still say that they are there. In memory: nothing of it is worth an entry of the log
until somebody falls silent."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from registry.catalog.errors import EngineReplaced
from registry.catalog.local.catalog import LocalCatalog
from registry.errors import TenonError
from registry.models import EngineState
from server.api.expected import Expected

SILENCE = 30.0
"""Six renewals missed. Requests find out earlier: the router's circuits open with the first failures."""
ACTOR = "control:silent"
"""Who announces an engine down whose own agent no longer can."""
_log = logging.getLogger(__name__)


class Liveness:
    """One per control plane process, and so for an installation with one of them."""

    def __init__(
        self,
        catalog: LocalCatalog,
        *,
        silence: float = SILENCE,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """``silence``: seconds; 0 for a process that must not judge, because agents may talk to others of
        its kind. ``ticks``: monotonic seconds."""
        self._catalog = catalog
        self.silence = silence
        self._ticks = ticks
        self._heard: dict[tuple[str, str], float] = {}
        """(engine, boot) -> when. Who was up before us is given the same time from our first look on: our own
        absence proves nothing about others."""

    def renew(self, engine: str, boot: str) -> bool:
        """False when this boot is not the one that is up: its agent has to announce it again, or to go."""
        known = self._catalog.engine(engine)
        if known is None or known.boot != boot or not known.up:
            return False
        self._heard[engine, boot] = self._ticks()
        return True

    def sweep(self) -> tuple[str, ...]:
        """Announce down whose agent is silent; their names."""
        if self.silence <= 0:
            return ()
        now = self._ticks()
        up = {(engine.engine, engine.boot): engine for engine in self._catalog.engines() if engine.up}
        self._heard = {key: self._heard.get(key, now) for key in up}
        return tuple(
            engine.engine
            for key, engine in up.items()
            if now - self._heard[key] > self.silence and self._end(engine)
        )

    def _end(self, engine: EngineState) -> bool:
        try:
            self._catalog.announce(engine.model_copy(update={"up": False}), actor=ACTOR)
        except EngineReplaced:  # it has just started again
            return False
        _log.warning("the agent of %s is silent: the engine counts as down", engine.engine)
        return True


class Sweeper(Protocol):
    def sweep(self) -> tuple[str, ...]: ...


class Watch:
    """Looks now and then, in a thread of its own."""

    def __init__(self, liveness: Liveness, expected: Expected | None = None) -> None:
        self._sweepers: list[Sweeper] = []
        self._every = 1.0
        if expected is not None and expected.watching:
            self._sweepers.append(expected)
        if liveness.silence > 0:
            self._sweepers.append(liveness)
            self._every = min(self._every, liveness.silence / 4)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tenon-liveness", daemon=True)

    def __enter__(self) -> Self:
        if self._sweepers:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            for each in self._sweepers:
                try:
                    each.sweep()
                except TenonError as error:
                    _log.warning("engines could not be looked after: %s", error.message)
                except Exception:
                    # A database that is away for a moment must not end the looking for good.
                    _log.exception("engines could not be looked after")
