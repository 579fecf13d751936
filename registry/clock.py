"""Time as a parameter, so that tests decide what time it is."""

from datetime import UTC, datetime, timedelta
from typing import Protocol

from registry.errors import InvalidInput


class Clock(Protocol):
    def now(self) -> datetime:
        """The current time, timezone-aware, in UTC."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds: sorts as text and has one spelling."""
    # Not strftime, which takes three times as long: every request is stamped.
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="microseconds")[:-6] + "Z"


def passed(stamped: str | None, now: datetime) -> bool:
    """Whether the moment that ``stamped`` names has come; None never comes, an unreadable one already has."""
    if stamped is None:
        return False
    try:
        moment = datetime.fromisoformat(stamped)
    except ValueError:
        return True
    return moment.tzinfo is None or moment <= now


def restamp(text: str, what: str) -> str:
    """``text`` in the spelling of :func:`stamp`. Raises InvalidInput; a time without a zone is no moment."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return stamp(moment)
    except (ValueError, OverflowError):
        pass
    raise InvalidInput(f"{what} must be an RFC 3339 time with its zone, like 2026-01-31T12:00:00Z")


class RatchetClock:
    """``clock``, except that it never goes back while this process runs: what expired stays expired."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest = datetime.min.replace(tzinfo=UTC)

    def now(self) -> datetime:
        self._latest = max(self._latest, self._clock.now())
        return self._latest
