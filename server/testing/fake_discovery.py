"""Discovery in memory: :class:`server.api.expected.Discovery` that says what it is told to say."""

import time
from collections.abc import Callable

from server.engines.discovery.sighting import Listed, Sighting


class InMemoryDiscovery:
    def __init__(
        self, engines: dict[str, Listed] | None = None, *, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        """``engines``: None is a source that was never heard."""
        self.engines = engines
        self._ticks = ticks

    def look(self) -> Sighting:
        return Sighting() if self.engines is None else Sighting(dict(self.engines), self._ticks())
