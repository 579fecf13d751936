"""When to ask vLLM once more for a version that it did not take."""

from collections.abc import Mapping, Set
from typing import Final

from registry.digests import Digest
from server.engines.errors import EngineLoadFailed

_GONE: Final = 404


class Reloading:
    """Of one boot. vLLM says 500 both of an adapter that it can never use and of a disk or a memory that was
    full for a moment, so it is asked again; then a fresh boot asks again, once for each version: whoever
    publishes what vLLM cannot use must not restart others' engine for ever."""

    def __init__(self, renewed_for: set[Digest], *, pauses: tuple[float, float], tries: int) -> None:
        """``renewed_for``: outlives the boot. ``pauses``: the first and the longest, in seconds."""
        self._renewed_for = renewed_for
        self._pause, self._longest = pauses
        self._tries = tries
        self._failed: dict[Digest, tuple[int, float, str]] = {}
        """How often, until when to wait, and why."""
        self.stuck = False
        """Whether only a fresh boot is left to try."""

    def failed(self, version: Digest, error: EngineLoadFailed, now: float) -> bool:
        """Whether it is worth another try: not what vLLM calls a wrong request."""
        status = error.facts.get("status")
        tries = self._failed.get(version, (0, 0.0, ""))[0] + 1
        wrong = isinstance(status, int) and status < 500 and status != _GONE
        if wrong or (tries >= self._tries and version in self._renewed_for and not self.stuck):
            self._failed.pop(version, None)
            return False
        if tries >= self._tries:
            self.stuck = True
            self._renewed_for.add(version)
        pause = min(self._pause * 2 ** (tries - 1), self._longest)
        self._failed[version] = tries, now + pause, error.message
        return True

    def loaded(self, version: Digest) -> None:
        self._failed.pop(version, None)
        self._renewed_for.discard(version)

    def waiting(self, now: float) -> Mapping[Digest, str]:
        """Versions whose next try is not due, with what vLLM said."""
        return {version: why for version, (_, until, why) in self._failed.items() if until > now}

    @property
    def again(self) -> Set[Digest]:
        return self._failed.keys()
