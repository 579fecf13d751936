"""A circuit per engine: one that fails again and again is left alone for a while, then tried with single
requests.

Only what an engine does to a connection opens it. An error that an engine *answers* does not: it lives, and a
tenant whose requests make it answer 500 must not be able to take it from the others. For the same reason what
one tenant alone met (answers that never end, garbage, ends that are none) opens it for that tenant alone: its
adapter or its requests may be the cause. That an engine takes no connection is nobody's doing.
"""

import logging
import math
from collections.abc import Callable
from enum import StrEnum

from router.errors import (
    EngineAnswered,
    EngineAnswerMismatch,
    EngineFailed,
    EngineInterrupted,
    EngineRejectedRequest,
    EngineStopped,
    EngineTimeout,
    EngineUnavailable,
    NothingSent,
    OutputInvalid,
    OutputRefused,
    OutputTruncated,
)
from router.places import Place

_log = logging.getLogger(__name__)
FAILURES = 3
"""In a row, without a success of anybody between: what one odd request can cause is not enough."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds that it is left alone; doubled with each probe that fails. vLLM takes about 28 s to start."""
_FORGOTTEN = 600.0
"""Seconds after which an engine that nobody asks any more (it is gone) is forgotten."""
_LONGEST_WAIT = 7200.0
"""Seconds beyond any lease: what was heard before that is no evidence for anybody."""
_ANSWERED = (EngineAnswered, EngineStopped)
_BLAMED = (EngineFailed, EngineAnswerMismatch, EngineInterrupted, EngineTimeout, EngineUnavailable)
SERVED = (EngineRejectedRequest, OutputInvalid, OutputRefused, OutputTruncated)
"""Errors of a request whose engine did all it should."""


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


def is_blamed(error: BaseException) -> bool:
    """Whether ``error`` speaks against the engine: no connection, no answer in time, garbage, a lie."""
    return isinstance(error, _BLAMED) and not isinstance(error, _ANSWERED)


class _Trouble:
    __slots__ = ("boot", "failures", "pause", "probed", "retry_at", "whose")

    def __init__(self, boot: str, whose: str | None) -> None:
        self.boot = boot
        self.whose = whose
        """The one tenant that met all of it; None: several did, or anybody would have."""
        self.failures = 0
        self.pause = FIRST_PAUSE
        self.probed = False
        """Whether a probe went out since the last failure."""
        self.retry_at = 0.0

    def keeps(self, tenant: str | None) -> bool:
        """Whether ``tenant`` may only probe."""
        return self.failures >= FAILURES and (self.whose is None or self.whose == tenant)


class Circuits:
    """Engines without failures cost a look into an empty dictionary."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        """``ticks``: monotonic seconds."""
        self._ticks = ticks
        self._troubles: dict[str, _Trouble] = {}
        self._heard: dict[str, float] = {}
        """Engine -> when it last answered anybody."""

    def admits(self, place: Place, tenant: str | None = None) -> bool:
        """Whether a request may go there now; changes nothing."""
        trouble = self._of(place) if self._troubles else None
        return trouble is None or not trouble.keeps(tenant) or self._ticks() >= trouble.retry_at

    def asked(self, place: Place, tenant: str | None = None) -> None:
        """Somebody goes there. At a half-open engine it is the probe, and the next one may follow only after
        another pause: a probe that nobody ever hears of again holds nothing up."""
        trouble = self._of(place) if self._troubles else None
        if trouble is not None and trouble.keeps(tenant):
            trouble.retry_at = self._ticks() + trouble.pause
            trouble.probed = True

    def succeeded(self, place: Place) -> None:
        """A whole answer arrived."""
        self._heard[place.engine] = self._ticks()
        if self._troubles and (trouble := self._of(place)) is not None:
            del self._troubles[place.engine]
            if trouble.failures >= FAILURES:
                _log.warning("engine %s answers again: its circuit is closed", place.engine)

    def failed(
        self, place: Place, error: BaseException, tenant: str | None = None, since: float = math.inf
    ) -> None:
        """``error`` ended the exchange; counts only what :func:`is_blamed`, and no wait of ``tenant`` in vain
        (it began at ``since``) while the engine answered others."""
        now = self._ticks()
        if not is_blamed(error):
            if isinstance(error, _ANSWERED):
                self._heard[place.engine] = now
            return
        if isinstance(error, EngineTimeout) and self._heard.get(place.engine, -math.inf) > since:
            return
        whose = None if isinstance(error, NothingSent) else tenant
        trouble = self._of(place)
        if trouble is None:
            self._forget(now)
            trouble = self._troubles[place.engine] = _Trouble(place.boot, whose)
        elif trouble.whose != whose:
            trouble.whose = None
        trouble.failures += 1
        if trouble.failures == FAILURES:
            _log.warning("engine %s failed %d times in a row: its circuit is open", place.engine, FAILURES)
        elif trouble.probed:  # requests from before it opened fail late, and say nothing new
            trouble.pause = min(2 * trouble.pause, LONGEST_PAUSE)
        trouble.probed = False
        trouble.retry_at = now + trouble.pause

    def states(self) -> dict[str, Circuit]:
        """Engine -> state, of those that are not closed; half open also where only one tenant is kept out."""
        now = self._ticks()
        return {
            engine: Circuit.HALF_OPEN if trouble.whose or now >= trouble.retry_at else Circuit.OPEN
            for engine, trouble in self._troubles.items()
            if trouble.failures >= FAILURES
        }

    def _of(self, place: Place) -> _Trouble | None:
        """Of this boot: an engine that was started again starts without a past."""
        trouble = self._troubles.get(place.engine)
        return trouble if trouble is not None and trouble.boot == place.boot else None

    def _forget(self, now: float) -> None:
        for engine, trouble in list(self._troubles.items()):
            if now - trouble.retry_at > _FORGOTTEN:
                del self._troubles[engine]
        for engine, heard in list(self._heard.items()):
            if now - heard > _LONGEST_WAIT:
                del self._heard[engine]
