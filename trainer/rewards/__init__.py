"""Verifiers and reward models: one score for one answer, used to train, to filter and to measure."""

from trainer.rewards.build import KINDS, build
from trainer.rewards.kind import Kind, Resources
from trainer.rewards.score import Scored, score
from trainer.rewards.verifier import Answer, Reward, Score, Verifier, each

__all__ = [
    "KINDS",
    "Answer",
    "Kind",
    "Resources",
    "Reward",
    "Score",
    "Scored",
    "Verifier",
    "build",
    "each",
    "score",
]
