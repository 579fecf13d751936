"""Which rows go into which step: seeded, fair, and with little padding.

transformers' own grouping walks from long to short rows through a quarter of the data, so that every step
sees one kind of row. Here rows of similar length share a batch, and the batches come in random order.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

_POOL: Final = 8
"""Batches whose rows are sorted together: enough to halve the padding, few enough to stay mixed."""


def arrange(lengths: Sequence[int], *, steps: int, batch_size: int, seed: int) -> list[int]:
    """Indices of the rows of ``steps`` batches, one batch after the other.

    No row is used a further time before every row has had its turn.
    """
    random = Random(f"batches:{seed}")  # noqa: S311 - an order, not a secret
    wanted = steps * batch_size
    stream: list[int] = []
    while len(stream) < wanted:
        epoch = list(range(len(lengths)))
        random.shuffle(epoch)
        stream += epoch
    stream = stream[:wanted]
    arranged: list[int] = []
    for start in range(0, wanted, _POOL * batch_size):
        pool = sorted(stream[start : start + _POOL * batch_size], key=lambda row: (lengths[row], row))
        batches = [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
        random.shuffle(batches)
        arranged += [row for batch in batches for row in batch]
    return arranged
