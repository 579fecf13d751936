"""Partners that a model plays whole conversations with: deterministic, so that a game can be replayed."""

from collections.abc import Mapping
from typing import Final

from trainer.environments.environment import Environment, Game, environment_of
from trainer.environments.twenty_questions import TwentyQuestions

ENVIRONMENTS: Final[Mapping[str, Environment]] = {"twenty_questions": TwentyQuestions()}

__all__ = ["ENVIRONMENTS", "Environment", "Game", "environment_of"]
