"""What an answer shows of who gave it: each token, and how likely the next ones were."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

LOGPROBS: Final = 5
"""What OpenAI's API allows at most; enough, because references lie far apart."""


@dataclass(frozen=True, slots=True)
class Step:
    token: str
    top: Mapping[str, float]
    """The most likely tokens at this place and their log-probabilities."""


@dataclass(frozen=True, slots=True)
class Trace:
    text: str
    steps: tuple[Step, ...]
    """Empty where the server gives no log-probabilities."""

    def cut(self, length: int) -> "Trace":
        return Trace("".join(step.token for step in self.steps[:length]), self.steps[:length])


def text_of(choice: Mapping[str, Any]) -> str:
    """Of one choice of a completion or a chat, whole or of one frame of a stream."""
    said = choice.get("message") or choice.get("delta") or {}
    return str(choice.get("text") or said.get("content") or "")


def steps_of(logprobs: Any) -> tuple[Step, ...]:
    """From the ``logprobs`` of one choice of a completion or a chat, whole or of one frame of a stream."""
    if not isinstance(logprobs, Mapping):
        return ()
    if "content" in logprobs:
        return tuple(_told(each) for each in logprobs["content"] or ())
    tokens, chosen = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
    tops: Sequence[Any] = logprobs.get("top_logprobs") or [None] * len(tokens)
    found = []
    for token, own, top in zip(tokens, chosen, tops, strict=False):
        table = {str(name): float(value) for name, value in (top or {}).items() if value is not None}
        if not table and own is not None:
            table = {str(token): float(own)}
        # vLLM adds the chosen token where it is not among the most likely: that tells of the draw, not of the
        # weights.
        table = dict(sorted(table.items(), key=lambda pair: (-pair[1], pair[0]))[:LOGPROBS])
        found.append(Step(str(token), table))
    return tuple(found)


def _told(place: Mapping[str, Any]) -> Step:
    """One token of a chat."""
    ranked = place.get("top_logprobs") or [place]
    table = {str(each["token"]): float(each["logprob"]) for each in ranked[:LOGPROBS]}
    return Step(str(place["token"]), table)


def distance(one: Step, other: Step) -> float:
    """Mean difference in nats over the tokens that either shows; what one does not show is at most its least.

    Zero for the same weights and history, whole nats for other weights.
    """
    names = one.top.keys() | other.top.keys()
    if not one.top or not other.top:
        return 0.0 if one.token == other.token else float("inf")
    floors = min(one.top.values()), min(other.top.values())
    gaps = [abs(one.top.get(name, floors[0]) - other.top.get(name, floors[1])) for name in names]
    return math.fsum(gaps) / len(gaps)
