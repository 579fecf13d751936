"""When a boot ends for versions that no longer answer as themselves in it."""

from collections.abc import Callable

from registry.digests import Digest
from server.engines.pauses import Pauses


class Chances:
    """Outlives the boots of an engine. A version that was recognised before, here or on another engine, and
    is not now: this boot has spoilt it, and a fresh one may not. One that was never recognised has itself to
    blame, and restarts nobody. However it comes about, each next time is twice as far from the last."""

    def __init__(self, *, pauses: tuple[float, float], now: Callable[[], float]) -> None:
        """``pauses``: between two fresh boots for one version, the first and the longest, in seconds."""
        self._pauses = Pauses(*pauses)
        self._longest = pauses[1]
        self._now = now
        self._recognised: set[Digest] = set()

    def recognised(self, version: Digest) -> None:
        self._recognised.add(version)

    def due(self, version: Digest, *, spoilt: bool) -> bool:
        """Whether a fresh boot is worth it. ``spoilt``: it is known not to be the version's fault."""
        known = spoilt or version in self._recognised
        return known and version not in self._pauses.waiting(self._now())

    def spent(self, version: Digest) -> None:
        """A boot ended for it."""
        now = self._now()
        if version not in self._pauses.waiting(now - self._longest):
            self._pauses.over(version)  # long ago: this is another matter
        self._pauses.failed(version, "", now)
