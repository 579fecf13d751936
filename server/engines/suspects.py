"""Versions whose load may have ended the engine."""

import math
from collections.abc import Mapping
from typing import Final

from registry.digests import Digest
from server.engines.pauses import Pause, Pauses

_WHY: Final = "vLLM ended or hung twice when it should load it or answer for it"


class Suspects:
    """Outlives the boots of an engine. A vLLM that ends or hangs between the first that it is asked for a
    version and the first look at it may do so for that version, every time: forgotten with the boot, one
    tenant's adapter would keep everybody's engine from ever being up.

    What was under way then comes last and alone in the next boot. What ends that one too is barred: not tried
    again while the engine serves anybody.
    """

    def __init__(self, *, pause: float) -> None:
        """``pause``: seconds between two tries of one that is barred, where nobody is served."""
        self._pauses = Pauses(pause, pause)
        self._begun: set[Digest] = set()

    def begins(self, version: Digest) -> None:
        """vLLM is about to be asked for it."""
        self._begun.add(version)

    def survived(self, version: Digest) -> None:
        """vLLM lives after it."""
        self._begun.discard(version)
        if version in self._pauses.often(2):
            # It was not this one that ended two boots: neither need it have been the others.
            for other in set(self._pauses.versions):
                self._pauses.over(other)
        self._pauses.over(version)

    @property
    def under_way(self) -> bool:
        return bool(self._begun)

    def all_survived(self) -> None:
        """vLLM lives at the end of the boot."""
        self._begun.clear()

    def fresh_boot(self, now: float) -> None:
        """Of what the one before did not see the end of, each may be why it is gone."""
        for version in self._begun:
            self._pauses.failed(version, _WHY, now)
        self._begun.clear()

    def is_suspect(self, version: Digest) -> bool:
        return version in self._pauses.versions

    def barred(self, now: float, *, serving: bool) -> Mapping[Digest, Pause]:
        """``serving``: whether anybody is in service."""
        found = self._pauses.often(2)
        if serving:
            return {version: Pause(2, math.inf, f"{_WHY}: not while others are served") for version in found}
        return {version: pause for version, pause in self._pauses.waiting(now).items() if version in found}
