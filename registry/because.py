"""Why no engine is to hold a version that is wanted."""

from collections.abc import Mapping

from registry.feed import State
from registry.homes import own
from registry.models import EngineState, Level
from registry.promotions import Because
from registry.wants import Want


def because(state: State, want: Want, owners: Mapping[str, str]) -> Because:
    """Of one that is on no engine. ``owners``: :func:`registry.homes.given`."""
    owner = want.tenant.id if own(want.tenant) else None
    mine = [
        engine
        for name, engine in state.engines.items()
        if engine.base == want.base and owners.get(name) == owner
    ]
    if not mine:
        return "none"
    large = [engine.up for engine in mine if _takes(engine, want)]
    if not large:
        return "rank"
    return "full" if any(large) else "down"


def _takes(engine: EngineState, want: Want) -> bool:
    """Merged into the weights, a version of any rank fits."""
    if want.tenant.isolation.level is Level.MERGED or engine.max_rank is None:
        return True
    return want.rank <= engine.max_rank
