"""Which versions have to be looked at again: those in service after every load, and all at a heartbeat.

One at a time, so that something new to load waits for one probe and not for all of them; and each at least
once in two heartbeats, however much is loaded.
"""

from collections.abc import Callable, Iterable, Sequence

from registry.digests import Digest


class Looks:
    def __init__(self) -> None:
        self._owed: set[Digest] = set()
        self._due: set[Digest] = set()
        """Those of the last heartbeat that had none since."""

    def owe(self, versions: Iterable[Digest]) -> None:
        """Something was loaded beside them."""
        self._owed.update(versions)

    def beat(self, versions: Iterable[Digest]) -> list[Digest]:
        """A heartbeat: all of ``versions`` are due. Returns those that were due at the one before, too."""
        found = set(versions)
        late = sorted(self._due & found)
        self._due = found
        return late

    def owing(self, serve: Iterable[Digest]) -> bool:
        """Whether something was loaded since one of ``serve`` was looked at."""
        return not self._owed.isdisjoint(serve)

    def next(self, serve: Sequence[Digest], able: Callable[[Digest], bool]) -> Digest | None:
        """The first of ``serve``, else any other that is due; only one that is ``able`` to be looked at."""
        for version in serve:
            if (version in self._owed or version in self._due) and able(version):
                return version
        return next((version for version in sorted(self._due) if able(version)), None)

    def seen(self, version: Digest) -> None:
        self._owed.discard(version)
        self._due.discard(version)
