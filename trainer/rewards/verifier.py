"""The one port of this package: answers in, scores out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from trainer.datasets import Case, Message

Score: TypeAlias = float | None
"""0 is wrong and 1 is right unless the verifier says otherwise; None where it does not apply to the case."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to a case."""

    case: Case
    text: str
    finished: bool = True
    """Whether it ended by itself; False when it was cut at the longest allowed."""
    turns: tuple[Message, ...] = ()
    """Everything behind the prompt, when it took several turns (tools, games)."""


class Verifier(Protocol):
    def __call__(self, answers: Sequence[Answer], /) -> Sequence[Score]:
        """One score for each answer, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Reward:
    """A verifier of a recipe, ready to use."""

    name: str
    weight: float
    verifier: Verifier
    binary: bool = True
    """Whether 1 means passed; otherwise the score is only more or less."""


def each(judge: Callable[[Answer], Score]) -> Verifier:
    """A verifier that looks at one answer at a time."""
    return lambda answers: [judge(answer) for answer in answers]
