"""place and lease: which attested engine is asked, and the count that shows a slot is in use."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from registry.digests import Digest
from router.places import Place

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Lease:
    """A request's hold on a version in an engine's slot, from before it is sent until after the last byte."""

    place: Place
    version: Digest


class Leases:
    """Requests in flight. A slot is held while its count is above zero."""

    def __init__(self) -> None:
        self._slots: Counter[tuple[str, Digest]] = Counter()
        self._engines: Counter[str] = Counter()

    @contextmanager
    def hold(self, place: Place, version: Digest) -> Iterator[Lease]:
        slot = (place.engine, version)
        self._slots[slot] += 1
        self._engines[place.engine] += 1
        try:
            yield Lease(place, version)
        finally:
            _release(self._slots, slot)
            _release(self._engines, place.engine)

    def on_slot(self, engine: str, version: Digest) -> int:
        return self._slots[engine, version]

    def on_engine(self, engine: str) -> int:
        return self._engines[engine]

    def engines(self) -> dict[str, int]:
        """Engine -> requests in flight, busy ones only."""
        return dict(self._engines)


def _release(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if counts[key] == 0:
        del counts[key]


def order(places: Sequence[Place], leases: Leases) -> list[Place]:
    """Fewest requests in flight first; equals by name, so that the choice can be explained."""
    return sorted(places, key=lambda place: (leases.on_engine(place.engine), place.engine))
