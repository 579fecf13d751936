"""When a boot ends for versions that it does not serve."""

from collections.abc import Callable, Set

from registry.digests import Digest


class Chances:
    """Outlives the boots of an engine. A version that was recognised before, here or on another engine, and
    is not now: this boot may have spoilt it. One that never was has itself to blame, and restarts nobody.
    One that vLLM goes on failing to load, or to answer for, is stuck, and has one fresh boot: it may be the
    version, and then no boot helps.

    Whoever publishes can make such versions, as many as they like: all of them together have one fresh boot,
    and the next one twice as far from it as that was from the one before.
    """

    def __init__(self, *, pauses: tuple[float, float], now: Callable[[], float]) -> None:
        """``pauses``: from one such fresh boot to the next, the first and the longest, in seconds."""
        self._first, self._longest = pauses
        self._now = now
        self._recognised: set[Digest] = set()
        self._had: set[Digest] = set()
        """Versions that were stuck, and had their fresh boot."""
        self._pause = 0.0
        self._until = 0.0

    def recognised(self, version: Digest) -> None:
        self._recognised.add(version)
        self._had.discard(version)

    def knows(self, version: Digest) -> bool:
        """Whether this engine has ever recognised it, in whatever boot."""
        return version in self._recognised

    @property
    def due(self) -> bool:
        return self._now() >= self._until

    def left(self, stuck: Set[Digest]) -> frozenset[Digest]:
        """Those that have not had their fresh boot."""
        return frozenset(stuck - self._had)

    def had(self, version: Digest) -> bool:
        """Whether it was stuck, had its fresh boot, and has not been recognised since."""
        return version in self._had

    def spent(self, stuck: Set[Digest] = frozenset()) -> None:
        """A boot ended for them, or for others that it did not recognise."""
        self._had |= stuck
        now = self._now()
        if now - self._until > self._longest:
            self._pause = 0.0  # long ago: this is another matter
        self._pause = min(max(2 * self._pause, self._first), self._longest)
        self._until = now + self._pause
