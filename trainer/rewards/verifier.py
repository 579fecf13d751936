"""The one port of this package: answers in, scores out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from trainer.datasets import Case, Message
from trainer.rewards.limit import bounded

Score: TypeAlias = float | None
"""0 is wrong and 1 is right unless the verifier says otherwise; None where it does not apply to the case."""

SECONDS = 10.0
"""That one look at one answer may take. What really needs longer (a program, a model) bounds itself."""


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


class AnswerUnjudged(Exception):
    """What a judge raised, and for which line. It never leaves this package: VerifierFailed says it."""

    def __init__(self, line: int, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {str(error)[:200]}")
        self.line = line


def each(judge: Callable[[Answer], Score], *, seconds: float = SECONDS) -> Verifier:
    """A verifier that looks at one answer at a time, at each for at most ``seconds``."""

    def verify(answers: Sequence[Answer]) -> Sequence[Score]:
        scores = []
        for answer in answers:
            try:
                with bounded(seconds):
                    scores.append(judge(answer))
            except Exception as error:
                raise AnswerUnjudged(answer.case.line, error) from error
        return scores

    return verify
