"""Which engines are down for good, as far as anybody can tell."""

from collections.abc import Callable

from registry.feed import State


class Absent:
    """Whoever waits for an engine that is down would wait for ever for one that was taken away: the registry
    forgets none."""

    def __init__(self, after: float, now: Callable[[], float]) -> None:
        """``after``: seconds of being down, seen from here, until it is given up."""
        self._after = after
        self._now = now
        self._since: dict[str, float] = {}

    def among(self, state: State) -> frozenset[str]:
        now = self._now()
        down = [engine.engine for engine in state.engines.values() if not engine.up]
        self._since = {name: self._since.get(name, now) for name in down}
        return frozenset(name for name, since in self._since.items() if now - since >= self._after)
