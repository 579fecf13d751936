"""Verifiers of whole games: the player's moves, one a line, are replayed against the case."""

from typing import Final, Literal

from registry.canonical import Document
from trainer.environments import environment_of
from trainer.environments.twenty_questions import replay
from trainer.rewards.kind import Kind, Resources
from trainer.rewards.verifier import Answer, Score, Verifier, each


class TwentyQuestionsSettings(Document):
    measure: Literal["efficiency", "success", "questions"] = "efficiency"
    """success x (1 - questions / 20); whether the thing was guessed; how many questions it took."""


def _twenty_questions(settings: TwentyQuestionsSettings, resources: Resources) -> Verifier:
    def judge(answer: Answer) -> Score:
        if environment_of(answer.case) != "twenty_questions":
            return None
        game = replay(answer.case, answer.text)
        if settings.measure == "efficiency":
            return game.efficiency
        return float(game.solved) if settings.measure == "success" else float(game.questions)

    return each(judge)


KINDS: Final = (
    Kind(
        "twenty_questions", "efficiency of a game of twenty questions", TwentyQuestionsSettings,
        _twenty_questions, binary=False,
    ),
)  # fmt: skip
