"""When to ask the control plane once more for a version that could not be had."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from registry.digests import Digest
from registry.errors import TenonError
from registry.feed import State
from server.engines.pauses import Pause, Pauses
from server.errors import ControlBusy, ControlUnreachable

_FAULT: Final = 500
"""What the control plane says of bytes that are damaged where it keeps them. Of a store that is busy it says
503, and a proxy without it 502 to 504."""


class Refetching:
    """Of one boot. What comes wrong is left alone for longer and longer, for each try may fetch all of it for
    nothing, until people do something about it. A control plane that is away costs nothing to ask: whoever
    waits for a promotion must not wait on when it is back."""

    def __init__(self, *, pauses: tuple[float, float]) -> None:
        """``pauses``: the first and the longest, in seconds."""
        self._pauses = Pauses(*pauses)
        self._state: State | None = None

    def heard(self, state: State) -> None:
        """Who has mended a version promotes it again, or signs it another fingerprint: no pause is left."""
        before, self._state = self._state, state
        if before is None or before is state or not self._pauses.versions:
            return
        moved = {
            key[:2]
            for old, new in ((before.aliases, state.aliases), (before.preparations, state.preparations))
            for key in _changed(old, new)
        }
        for version in list(self._pauses.versions):
            known = state.versions.get(version)
            if (
                known is None
                or known != before.versions.get(version)
                or (known.tenant, known.adapter) in moved
            ):
                self.fetched(version)

    def failed(self, version: Digest, error: TenonError, now: float) -> Pause:
        known = self._pauses.unheard if _away(error) else self._pauses.failed
        return known(version, error.message, now)

    def fetched(self, version: Digest) -> None:
        self._pauses.over(version)

    def waiting(self, now: float) -> Mapping[Digest, Pause]:
        """Versions whose next try is not due."""
        return self._pauses.waiting(now)


def _changed(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Iterator[Any]:
    """Keys in ``new``. Most of its documents are the same objects as before, which is quick to see."""
    return (key for key, value in new.items() if (was := old.get(key)) is not value and was != value)


def _away(error: TenonError) -> bool:
    """Whether nothing was learnt of the version, and nothing of it came. An answer that broke off may have
    been nearly all of it: long bytes are on their way before the last of them is seen to be damaged."""
    if "begun" in error.facts or error.facts.get("status_code") == _FAULT:
        return False
    return isinstance(error, ControlUnreachable | ControlBusy)
