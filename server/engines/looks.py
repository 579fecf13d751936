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
        self._last: dict[Digest, float] = {}
        """When each one was looked at last."""

    def owe(self, versions: Iterable[Digest]) -> None:
        """Something was loaded beside them."""
        self._owed.update(versions)

    def beat(self, versions: Iterable[Digest]) -> None:
        """A heartbeat: all of ``versions`` are due, if none is any more."""
        found = set(versions)
        self._due &= found
        self._due = self._due or found

    def owing(self, serve: Iterable[Digest]) -> bool:
        """Whether something was loaded since one of ``serve`` was looked at."""
        return not self._owed.isdisjoint(serve)

    def next(
        self, serve: Sequence[Digest], able: Callable[[Digest], bool], *, round_: bool = True
    ) -> Digest | None:
        """One of ``serve`` that was loaded beside, else of the ``round_``, if that may go on, one in service,
        else any other; of several the one whose last look is longest ago: loads that never end would have the
        first looked at again and again. Only one that is ``able`` to be looked at."""
        kinds = [[version for version in serve if version in self._owed]]
        if round_:
            kinds += [[version for version in serve if version in self._due], sorted(self._due)]
        for kind in kinds:
            if found := [version for version in kind if able(version)]:
                return min(found, key=lambda version: self._last.get(version, 0))
        return None

    def seen(self, version: Digest, now: float) -> None:
        """``now``: of a clock that nobody sets back."""
        self._owed.discard(version)
        self._due.discard(version)
        self._last[version] = now

    def oldest(self, versions: Iterable[Digest]) -> float | None:
        """When whoever of ``versions`` waited longest was looked at; each of them was."""
        return min((self._last[version] for version in versions), default=None)
