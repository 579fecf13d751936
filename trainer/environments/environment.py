"""The port of this package: a game for each case, a reply to each move."""

from collections.abc import Sequence
from typing import Final, Protocol

from trainer.datasets import Case

COLUMN: Final = "environment"
"""In ``columns`` of a case: which environment it is played in, also when it is evaluated."""


class Game(Protocol):
    """One conversation under way."""

    def reply(self, move: str) -> str | None:
        """What the partner says to ``move``; None ends the game."""
        ...


class Environment(Protocol):
    def start(self, case: Case) -> Game: ...

    def check(self, cases: Sequence[Case], file: str) -> None:
        """Raises DataInvalid, naming every case that is none of this environment's."""
        ...

    def room(self, move: int) -> int:
        """Tokens that a whole game needs behind its prompt when a move may have ``move``."""
        ...


def environment_of(case: Case) -> str | None:
    found = case.columns.get(COLUMN)
    return found if isinstance(found, str) else None
