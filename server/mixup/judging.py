"""Whose answer was it? Nearest reference, token by token, with a word for what cannot be told."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from server.mixup.trace import Trace, distance

Kind: TypeAlias = Literal["own", "other", "switched", "altered", "unclear"]
WRONG: Final = frozenset[Kind]({"other", "switched", "altered"})
BASE: Final = "base"

_OWN: Final = 1 / 3
"""An answer within this share of the way to the nearest other reference is the adapter's own; engines are
attested by the same factor of three."""
_ALTERED: Final = 2 / 3
_TELLING: Final = 10
"""How many times the noise two references must lie apart, so that an answer can be told from the other's."""
_LEAST: Final = 1e-3
"""Nats that they must lie apart however quiet it was: batches change a float32 answer by 1e-6 (vLLM 0.32)."""


@dataclass(frozen=True, slots=True)
class Judgement:
    kind: Kind
    """own; other: from its first token another's; switched: its own at first, and then not; altered: nobody's
    (stale cache, poisoned memory); unclear: cannot be told."""
    nearest: str = ""
    """Who else it resembles, where it does."""
    at: int = 0
    """The first token that is wrong."""
    own: float = 0.0
    """Distance to its own reference there, in nats."""
    other: float = math.inf
    """Distance to the nearest other."""

    @property
    def wrong(self) -> bool:
        return self.kind in WRONG


@dataclass
class References:
    """What each set of weights answers to each prompt, recorded while nothing else was asked."""

    traces: dict[tuple[str, str], Trace] = field(default_factory=dict)
    """(weights, prompt) -> answer"""
    noise: float = 0.0
    """The largest distance between two recordings of the same."""

    def add(self, weights: str, prompt: str, first: Trace, again: Trace | None = None) -> None:
        self.traces[weights, prompt] = first
        if again is not None:
            self.noise = max(self.noise, _apart(first, again))

    def weights(self) -> tuple[str, ...]:
        return tuple(sorted({weights for weights, _ in self.traces}))

    def knows(self, weights: str, prompt: str) -> bool:
        return (weights, prompt) in self.traces

    def others(self, weights: str, prompt: str) -> dict[str, Trace]:
        return {w: trace for (w, p), trace in self.traces.items() if p == prompt and w != weights}

    def gap(self, weights: str, prompt: str) -> float:
        """From these weights to the nearest others, at the first token of the answer."""
        own = self.traces[weights, prompt]
        return min((_first(own, other) for other in self.others(weights, prompt).values()), default=math.inf)

    def nearest(self) -> float:
        """The smallest gap of all: how well a mix-up can be told where it is hardest."""
        return min((self.gap(*each) for each in self.traces), default=0.0)

    def alike(self) -> list[tuple[str, str]]:
        """Pairs of weights that answer alike to every prompt they share: an adapter without effect, or a
        server that has mistaken one for the other already while nothing else was asked."""
        prompts: dict[str, set[str]] = {}
        for weights, prompt in self.traces:
            prompts.setdefault(weights, set()).add(prompt)
        names = self.weights()
        return [
            (one, other)
            for at, one in enumerate(names)
            for other in names[at + 1 :]
            if (shared := prompts[one] & prompts[other])
            and all(self._same(one, other, prompt) for prompt in shared)
        ]

    def judge(self, seen: Trace, *, weights: str, prompt: str) -> Judgement:
        own, others = self.traces[weights, prompt], self.others(weights, prompt)
        if not own.steps or not seen.steps:
            return _by_text(seen, own, others)
        gap = self.gap(weights, prompt)
        if gap < max(_TELLING * self.noise, _LEAST):
            return Judgement("unclear", own=_first(seen, own), other=gap)
        if math.isinf(gap):  # nobody to be mistaken for: any change of a nat is not this adapter's
            gap = 1.0
        at_first = _first(seen, own)
        nearest, near = _nearest(seen, others)
        if at_first > gap * _OWN:
            if near <= at_first * _OWN:
                return Judgement("other", nearest, 0, at_first, near)
            kind: Kind = "altered" if at_first > gap * _ALTERED else "unclear"
            return Judgement(kind, nearest, 0, at_first, near)
        return _along(seen, own, gap) or Judgement("own", own=at_first, other=near)

    def _same(self, one: str, other: str, prompt: str) -> bool:
        a, b = self.traces[one, prompt], self.traces[other, prompt]
        if not a.steps or not b.steps:
            return a.text == b.text
        return _first(a, b) <= max(_TELLING * self.noise, 1e-3)


def _along(seen: Trace, own: Trace, gap: float) -> Judgement | None:
    """The first token after the first that the own weights would not have given. Beyond a token that fell the
    other way by a hair's breadth nothing can be compared, and that is no fault."""
    for at, (step, wanted) in enumerate(zip(seen.steps, own.steps, strict=False)):
        apart = distance(step, wanted)
        if apart > gap * _OWN:
            return Judgement("switched", at=at, own=apart)
        if step.token != wanted.token:
            return None
    return None


def _by_text(seen: Trace, own: Trace, others: Mapping[str, Trace]) -> Judgement:
    if seen.text == own.text:
        unique = all(other.text != own.text for other in others.values())
        return Judgement("own" if unique else "unclear", own=0.0)
    for name, other in others.items():
        if seen.text == other.text:
            return Judgement("other", name, own=1.0, other=0.0)
    return Judgement("altered", own=1.0)


def _first(one: Trace, other: Trace) -> float:
    if not one.steps or not other.steps:
        return 0.0 if one.text == other.text else 1.0
    return distance(one.steps[0], other.steps[0])


def _nearest(seen: Trace, others: Mapping[str, Trace]) -> tuple[str, float]:
    ranked = sorted((_first(seen, trace), name) for name, trace in others.items())
    return (ranked[0][1], ranked[0][0]) if ranked else ("", math.inf)


def _apart(one: Trace, other: Trace) -> float:
    """The largest distance as long as both have said the same."""
    worst = 0.0
    for a, b in zip(one.steps, other.steps, strict=False):
        worst = max(worst, distance(a, b))
        if a.token != b.token:
            break
    return worst


def worst(found: Iterable[Judgement]) -> list[Judgement]:
    """The wrong ones, the furthest from their own reference first."""
    return sorted((each for each in found if each.wrong), key=lambda each: -each.own)
