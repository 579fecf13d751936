"""How long what did not work is left alone: each time twice as long as the time before."""

from collections.abc import Set
from dataclasses import dataclass
from typing import Final

from registry.digests import Digest

_ENOUGH: Final = 32
"""Doublings: beyond any longest pause. After a day of failures the number would be too large for a float."""


@dataclass(frozen=True, slots=True)
class Pause:
    tries: int
    """That failed, one after another."""
    until: float
    """Of the loop's clock, which nobody sets back."""
    why: str


class Pauses:
    """Of versions, for one of the things that may go wrong with them."""

    def __init__(self, first: float, longest: float) -> None:
        """In seconds."""
        self._first, self._longest = first, longest
        self._known: dict[Digest, Pause] = {}

    def failed(self, version: Digest, why: str, now: float) -> Pause:
        tries = self._tries(version) + 1
        doubled = self._first * 2 ** (min(tries, _ENOUGH) - 1)
        return self._put(version, tries, min(doubled, self._longest), why, now)

    def unheard(self, version: Digest, why: str, now: float) -> Pause:
        """It was not even tried: again after the shortest pause, and the next failure counts as it would have
        counted now."""
        return self._put(version, self._tries(version), self._first, why, now)

    def over(self, version: Digest) -> None:
        """It worked, or is given up."""
        self._known.pop(version, None)

    def waiting(self, now: float) -> dict[Digest, Pause]:
        """Those whose next try is not due."""
        return {version: pause for version, pause in self._known.items() if pause.until > now}

    @property
    def versions(self) -> Set[Digest]:
        """Those that did not work the last time."""
        return self._known.keys()

    def often(self, tries: int) -> Set[Digest]:
        """Those that did not work so many times in a row, or more."""
        return {version for version, pause in self._known.items() if pause.tries >= tries}

    def _tries(self, version: Digest) -> int:
        known = self._known.get(version)
        return known.tries if known is not None else 0

    def _put(self, version: Digest, tries: int, seconds: float, why: str, now: float) -> Pause:
        pause = self._known[version] = Pause(tries, now + seconds, why)
        return pause
