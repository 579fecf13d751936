"""Which rows go into which step: seeded, fair, and with little padding.

transformers' own grouping walks from long to short rows through a quarter of the data, so that every step
sees one kind of row. Here rows of similar length share a batch, and the batches come in random order.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import Final

_POOL: Final = 8
"""Batches whose rows are sorted together: enough to halve the padding, few enough to stay mixed."""


def arrange(
    lengths: Sequence[int],
    *,
    steps: int,
    batch_size: int,
    seed: int,
    weights: Sequence[float] | None = None,
) -> list[int]:
    """Indices of the rows of ``steps`` batches, one batch after the other.

    Every pass uses a row as often as its weight says (once, without weights): 1.5 means once and twice in
    turn, 0.25 every fourth time.
    """
    random = Random(f"batches:{seed}")  # noqa: S311 - an order, not a secret
    wanted = steps * batch_size
    stream: list[int] = []
    passes = 0
    while len(stream) < wanted:
        rows = epoch(len(lengths), passes, weights)
        passes += 1
        random.shuffle(rows)
        stream += rows
    stream = stream[:wanted]
    arranged: list[int] = []
    for start in range(0, wanted, _POOL * batch_size):
        pool = sorted(stream[start : start + _POOL * batch_size], key=lambda row: (lengths[row], row))
        batches = [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
        random.shuffle(batches)
        arranged += [row for batch in batches for row in batch]
    return arranged


def epoch(rows: int, passes: int, weights: Sequence[float] | None = None) -> list[int]:
    """Which rows pass number ``passes`` (from 0) has, in their order, each as often as its weight says."""
    if weights is None:
        return list(range(rows))
    return [row for row in range(rows) for _ in range(_turns(weights[row], passes))]


def _turns(weight: float, passes: int) -> int:
    """How often a row comes in pass ``passes`` (from 0), so that the sums keep to the weight. The first pass
    has every row at least once, so that nothing in the file goes unseen."""
    due = math.ceil(weight * (passes + 1))
    return due - math.ceil(weight * passes)
