"""How large one boot is made: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.engines.errors import EngineSpecInvalid

RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM 0.32 accepts as ``--max-lora-rank``."""
_LEAST: Final = 16
"""vLLM's own default. Most adapters fit, and a first one of rank 16 is no reason for a fresh boot."""
_EACH: Final = 3
"""Names for each wanted version: its own, that of the next one, and that of the one before."""


def slot_rank(rank: int) -> int:
    """The smallest rank that vLLM accepts and that holds ``rank``. Raises EngineSpecInvalid above 512."""
    for allowed in RANKS:
        if 0 < rank <= allowed:
            return allowed
    raise EngineSpecInvalid(f"rank {rank} cannot be served: vLLM takes 1 to {RANKS[-1]}")


@dataclass(frozen=True, slots=True)
class Sizes:
    rank: int
    """``--max-lora-rank``: vLLM computes with as much for the smallest adapter, too."""
    names: int
    """How many versions one boot may ever load."""


def sizes(wanted: Sequence[int], bounds: Sizes) -> Sizes:
    """For versions of the ranks ``wanted``. ``bounds.rank`` is the largest rank served, ``bounds.names`` the
    least number of names."""
    fitting = [rank for rank in wanted if rank <= bounds.rank]
    largest = max(fitting, default=0)
    return Sizes(
        rank=min(slot_rank(max(largest, _LEAST)), bounds.rank),
        names=max(bounds.names, _EACH * len(fitting)),
    )
