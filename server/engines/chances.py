"""When a boot ends for versions that no longer answer as themselves in it."""

from collections.abc import Callable

from registry.digests import Digest


class Chances:
    """Outlives the boots of an engine. A version that was recognised before, here or on another engine, and
    is not now: this boot may have spoilt it. One that never was has itself to blame, and restarts nobody.

    Whoever publishes can make such versions, as many as they like: all of them together have one fresh boot,
    and the next one twice as far from it as that was from the one before.
    """

    def __init__(self, *, pauses: tuple[float, float], now: Callable[[], float]) -> None:
        """``pauses``: from one such fresh boot to the next, the first and the longest, in seconds."""
        self._first, self._longest = pauses
        self._now = now
        self._recognised: set[Digest] = set()
        self._pause = 0.0
        self._until = 0.0

    def recognised(self, version: Digest) -> None:
        self._recognised.add(version)

    def knows(self, version: Digest) -> bool:
        """Whether this engine has ever recognised it, in whatever boot."""
        return version in self._recognised

    @property
    def due(self) -> bool:
        return self._now() >= self._until

    def spent(self) -> None:
        """A boot ended for it."""
        now = self._now()
        if now - self._until > self._longest:
            self._pause = 0.0  # long ago: this is another matter
        self._pause = min(max(2 * self._pause, self._first), self._longest)
        self._until = now + self._pause
