"""Which versions have to be looked at again: those in service after every load, and all in rounds.

One at a time, so that something new to load waits for one probe and not for all of them. A round begins at a
heartbeat, and the next one after its end: of a hundred versions it lasts longer than a heartbeat, and takes
no more of the engine for that.
"""

from collections.abc import Callable, Iterable, Sequence

from registry.digests import Digest


class Looks:
    def __init__(self) -> None:
        self._owed: set[Digest] = set()
        self._due: set[Digest] = set()
        """Those of the round that had none in it."""
        self._late: frozenset[Digest] = frozenset()
        """What was due at the last heartbeat."""

    def owe(self, versions: Iterable[Digest]) -> None:
        """Something was loaded beside them."""
        self._owed.update(versions)

    def beat(self, versions: Iterable[Digest]) -> Digest | None:
        """A heartbeat: all of ``versions`` are due, if none is any more. Returns one that was due before and
        still is, if there was no look at all since the heartbeat before: nobody found time for it."""
        found = set(versions)
        self._due &= found
        starved = bool(self._due) and self._due == self._late
        self._due = self._due or found
        self._late = frozenset(self._due)
        return min(self._due) if starved else None

    def owing(self, serve: Iterable[Digest]) -> bool:
        """Whether something was loaded since one of ``serve`` was looked at."""
        return not self._owed.isdisjoint(serve)

    def next(
        self, serve: Sequence[Digest], able: Callable[[Digest], bool], *, round_: bool = True
    ) -> Digest | None:
        """The first of ``serve`` that was loaded beside, else of the ``round_``, if that may go on, the first
        in service or any other; only one that is ``able`` to be looked at."""
        places = [(serve, self._owed)]
        if round_:
            places += [(serve, self._due), (sorted(self._due), self._due)]
        for versions, wanted in places:
            for version in versions:
                if version in wanted and able(version):
                    return version
        return None

    def seen(self, version: Digest) -> None:
        self._owed.discard(version)
        self._due.discard(version)
