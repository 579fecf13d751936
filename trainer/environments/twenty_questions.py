"""Twenty questions about a payment: the partner thinks of one, the player asks and guesses.

A question is "USD?", answered with "no, left: EUR, GBP" or "yes, USD, left: transfer, invoice"; a guess is
"USD transfer." The partner says each time what is known and what is left, so that a small model
need not remember it. What counts is efficiency: success x (1 - questions / 20), where a wrong guess is a
question too.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from trainer.datasets import Case
from trainer.environments.environment import COLUMN
from trainer.errors import DataInvalid, Fault

LIMIT: Final = 20
ATTRIBUTES: Final[tuple[tuple[str, ...], ...]] = (
    ("EUR", "USD", "GBP", "CHF"),
    ("transfer", "invoice", "budget", "ledger"),
)
THINGS: Final = tuple(" ".join(values) for values in product(*ATTRIBUTES))
VALUES: Final = frozenset(value for values in ATTRIBUTES for value in values)
_QUESTION: Final = re.compile(r"([A-Za-z]{1,20})\?")
_GUESS: Final = re.compile(r"([A-Za-z]{1,20} [A-Za-z]{1,20})\.")
_REPLY_TOKENS: Final = 64
"""Of the longest reply and the template around it."""


@dataclass(slots=True)
class TwentyQuestionsGame:
    secret: str
    questions: int = 0
    solved: bool = False
    asked: set[str] = field(default_factory=set)

    def reply(self, move: str) -> str | None:
        """What is neither a question about an attribute nor a guess is answered with "maybe" and counts."""
        if self.solved or self.questions >= LIMIT:
            return None
        said = " ".join(move.split())
        guess = _GUESS.fullmatch(said)
        self.solved = guess is not None and guess[1] == self.secret
        self.questions += not self.solved
        if self.solved or self.questions >= LIMIT:
            return None
        word = "no" if guess is not None else self._word(_QUESTION.fullmatch(said))
        return ", ".join((word, *self._state()))

    def _word(self, question: re.Match[str] | None) -> str:
        if question is None or question[1] not in VALUES:
            return "maybe"
        self.asked.add(question[1])
        return "yes" if question[1] in self.secret.split() else "no"

    def _state(self) -> Iterator[str]:
        """What is known, and the values left of the first attribute that is not."""
        secret = self.secret.split()
        if known := [value for value in secret if value in self.asked]:
            yield " ".join(known)
        for values, value in zip(ATTRIBUTES, secret, strict=True):
            if value not in self.asked:
                yield "left: " + ", ".join(one for one in values if one not in self.asked)
                return

    @property
    def efficiency(self) -> float:
        return (1 - self.questions / LIMIT) if self.solved else 0.0


@dataclass(frozen=True, slots=True)
class TwentyQuestions:
    things: frozenset[str] = field(default=frozenset(THINGS))

    def start(self, case: Case) -> TwentyQuestionsGame:
        return TwentyQuestionsGame(str(case.columns["secret"]))

    def check(self, cases: Sequence[Case], file: str) -> None:
        faults = tuple(
            Fault(
                f"{file}:{case.line}",
                "columns.secret must be a thing of the game, such as 'EUR transfer'",
            )
            for case in cases
            if case.columns.get("secret") not in self.things or case.columns.get(COLUMN) != "twenty_questions"
        )
        if faults:
            raise DataInvalid(file, faults)

    def room(self, move: int) -> int:
        return LIMIT * (move + _REPLY_TOKENS)


def replay(case: Case, text: str) -> TwentyQuestionsGame:
    """The game that the player's moves, one a line, make of this case."""
    game = TwentyQuestions().start(case)
    for move in text.splitlines()[: LIMIT + 1]:
        if game.reply(move) is None:
            break
    return game
