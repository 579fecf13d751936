"""When to ask vLLM once more for a version that it did not take."""

from collections.abc import Mapping, Set
from typing import Final

from registry.digests import Digest
from server.engines.errors import EngineLoadFailed
from server.engines.pauses import Pause, Pauses

_GONE: Final = 404


class Reloading:
    """Of one boot. vLLM says 500 both of an adapter that it can never use and of a disk or a memory that was
    full for a moment, so it is asked again; then a fresh boot asks again, once for each version: whoever
    publishes what vLLM cannot use must not restart others' engine for ever."""

    def __init__(self, renewed_for: set[Digest], *, pauses: tuple[float, float], tries: int) -> None:
        """``renewed_for``: outlives the boot. ``pauses``: the first and the longest, in seconds."""
        self._renewed_for = renewed_for
        self._pauses = Pauses(*pauses)
        self._tries = tries
        self._stuck: set[Digest] = set()

    def failed(self, version: Digest, error: EngineLoadFailed, now: float) -> Pause | None:
        """None when it is not worth another try: what vLLM calls a wrong request, or too often."""
        status = error.facts.get("status")
        pause = self._pauses.failed(version, error.message, now)
        wrong = isinstance(status, int) and status < 500 and status != _GONE
        often = pause.tries >= self._tries
        if wrong or (often and version in self._renewed_for and version not in self._stuck):
            self._over(version)
            return None
        if often:
            self._stuck.add(version)
            self._renewed_for.add(version)
        return pause

    def loaded(self, version: Digest) -> None:
        self._over(version)
        self._renewed_for.discard(version)

    def waiting(self, now: float) -> Mapping[Digest, Pause]:
        """Versions whose next try is not due."""
        return self._pauses.waiting(now)

    @property
    def again(self) -> Set[Digest]:
        return self._pauses.versions

    @property
    def stuck(self) -> Set[Digest]:
        """Those that failed too often: a fresh boot may do better."""
        return self._stuck

    def _over(self, version: Digest) -> None:
        self._pauses.over(version)
        self._stuck.discard(version)
