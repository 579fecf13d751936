"""Near duplicates: texts whose sets of three-word pieces overlap.

MinHash and banding (Broder 1997; datasketch) only propose pairs, so that not all are compared; each proposed
pair is then compared exactly. What is reported is therefore true, on every machine and in every order.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from trainer.errors import LibrariesMissing

LIKENESS: Final = 0.8
"""Jaccard similarity from which texts count as near duplicates (as for C4 and The Pile deduplications)."""

_PROPOSED: Final = 0.6
"""Below ``LIKENESS``, or pairs just above it would be missed now and then: banding is steep, not a step."""

_PIECE: Final = 3
_WORDS: Final = re.compile(r"[぀-ヿ㐀-鿿가-힯]|\d+(?:[.,]\d+)*|[^\W\d_]+")
"""Numbers are words: two transfers of different amounts are different questions. Scripts without spaces count
by sign."""


def pieces(text: str) -> frozenset[str]:
    words = _WORDS.findall(text.casefold())
    if len(words) <= _PIECE:
        return frozenset({" ".join(words)})
    return frozenset(" ".join(words[at : at + _PIECE]) for at in range(len(words) - _PIECE + 1))


def likeness(ours: frozenset[str], theirs: frozenset[str]) -> float:
    return len(ours & theirs) / len(ours | theirs)


class Neighbours:
    """Texts seen so far. Those that say the same in other punctuation are kept once."""

    def __init__(self) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ModuleNotFoundError as error:
            raise LibrariesMissing(f"{error.name} is not installed", library=error.name) from None
        self._sketch: Any = MinHash
        self._bands: Any = MinHashLSH(threshold=_PROPOSED, num_perm=128)
        self._known: dict[frozenset[str], int] = {}
        self._sets: list[frozenset[str]] = []

    def nearest(self, ours: frozenset[str]) -> tuple[int, float] | None:
        """(number of the first text that is a near duplicate, likeness) or None."""
        if ours in self._known:
            return self._known[ours], 1.0
        if not self._sets:
            return None
        for number in sorted(self._bands.query(self._sketched(ours))):
            if (found := likeness(ours, self._sets[number])) >= LIKENESS:
                return self._known[self._sets[number]], found
        return None

    def add(self, number: int, ours: frozenset[str]) -> None:
        if ours not in self._known:
            self._known[ours] = number
            self._bands.insert(len(self._sets), self._sketched(ours))
            self._sets.append(ours)

    def _sketched(self, ours: frozenset[str]) -> Any:
        sketch = self._sketch(num_perm=128, seed=1)
        sketch.update_batch([piece.encode() for piece in ours])
        return sketch


def within(texts: Sequence[str]) -> list[tuple[int, int, float]]:
    """(later, earlier, likeness) of every text that an earlier one is a near duplicate of."""
    seen, found = Neighbours(), []
    for number, text in enumerate(texts):
        ours = pieces(text)
        if (near := seen.nearest(ours)) is not None:
            found.append((number, *near))
        seen.add(number, ours)
    return found


def across(texts: Sequence[str], others: Sequence[str]) -> list[tuple[int, int, float]]:
    """(number in ``texts``, number in ``others``, likeness)."""
    seen = Neighbours()
    for number, other in enumerate(others):
        seen.add(number, pieces(other))
    near = ((number, seen.nearest(pieces(text))) for number, text in enumerate(texts))
    return [(number, *hit) for number, hit in near if hit is not None]
