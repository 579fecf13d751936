"""Rows laid end to end: steps without padding, and without rows that see each other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from trainer.learning.batches import epoch


def pack(
    lengths: Sequence[int],
    *,
    packs: int,
    capacity: int,
    seed: int,
    weights: Sequence[float] | None = None,
) -> list[list[int]]:
    """``packs`` lists of row indices, each of at most ``capacity`` tokens: best fit, longest row first.

    Every pass over the rows is packed by itself and its packs are shuffled, so no row comes again before all
    have come. No row may be longer than ``capacity``.
    """
    random = Random(f"packs:{seed}")  # noqa: S311 - an order, not a secret
    done: list[list[int]] = []
    passes = 0
    while len(done) < packs:
        bins = _best_fit(epoch(len(lengths), passes, weights), lengths, capacity)
        random.shuffle(bins)
        done += bins
        passes += 1
    return done[:packs]


def _best_fit(rows: Iterable[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    free: list[int] = []
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        fitting = [place for place, room in enumerate(free) if room >= lengths[row]]
        if fitting:
            place = min(fitting, key=lambda place: (free[place], place))
            bins[place].append(row)
            free[place] -= lengths[row]
        else:
            bins.append([row])
            free.append(capacity - lengths[row])
    return bins


def unpacked(batches: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Flattened batches (``input_ids``, ``labels``, ``position_ids``, each (1, tokens)) as one batch a row.

    A position of 0 starts a row: that is also how the attention mask knows where rows end.
    """
    for batch in batches:
        starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
        ends = [*starts[1:], batch["input_ids"].shape[1]]
        for start, end in zip(starts, ends, strict=True):
            ids = batch["input_ids"][:, start:end]
            yield {
                "input_ids": ids,
                "labels": batch["labels"][:, start:end],
                "attention_mask": ids.new_ones(ids.shape),
            }
