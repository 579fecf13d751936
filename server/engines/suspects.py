"""Versions whose load may have ended the engine."""

from collections.abc import Mapping
from typing import Final

from registry.digests import Digest
from server.engines.pauses import Pause, Pauses

_WHY: Final = "vLLM ended or hung when it should load or answer for it"


class Suspects:
    """Outlives the boots of an engine. A vLLM that ends or hangs between a version's load and the first look
    at it may do so for that version, every time: forgotten with the boot, one tenant's adapter would keep
    everybody's engine from ever being up.

    What was being loaded then is loaded last and alone in the next boot. What ends that one too is left alone
    after it, for longer each time.
    """

    def __init__(self, *, pauses: tuple[float, float]) -> None:
        """``pauses``: the first and the longest, in seconds."""
        self._pauses = Pauses(*pauses)
        self._under_way: set[Digest] = set()

    def begins(self, version: Digest) -> None:
        """vLLM is about to be asked to load it."""
        self._under_way.add(version)

    def over(self, version: Digest) -> None:
        """vLLM was heard after it."""
        self._under_way.discard(version)
        self._pauses.over(version)

    def fresh_boot(self, now: float) -> None:
        """Of the loads that the one before did not see the end of, each may be why it is gone."""
        for version in self._under_way:
            self._pauses.failed(version, _WHY, now)
        self._under_way.clear()

    def suspects(self, version: Digest) -> bool:
        return version in self._pauses.versions

    def waiting(self, now: float) -> Mapping[Digest, Pause]:
        """Versions whose next try is not due. The first has none before it: most likely it was another's
        fault, or somebody stopped vLLM."""
        return {version: pause for version, pause in self._pauses.waiting(now).items() if pause.tries > 1}
