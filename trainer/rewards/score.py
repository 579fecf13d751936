"""Scores of all rewards for a batch of answers, and what they come to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.errors import VerifierFailed
from trainer.rewards.verifier import Answer, AnswerUnjudged, Reward, Score

PASS = 0.5
"""From this score on, a binary verifier has accepted the answer."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer's scores by reward name, and their weighted sum over those that apply."""

    scores: dict[str, Score]
    total: float
    accepted: bool
    """Whether every binary reward of positive weight that applies has passed."""


def score(rewards: Sequence[Reward], answers: Sequence[Answer]) -> list[Scored]:
    """Raises VerifierFailed, naming verifier and line: a reward that is made up is worse than none."""
    columns = [_ask(reward, answers) for reward in rewards]
    return [
        Scored(
            scores={reward.name: column[place] for reward, column in zip(rewards, columns, strict=True)},
            total=sum(
                reward.weight * given
                for reward, column in zip(rewards, columns, strict=True)
                if (given := column[place]) is not None
            ),
            accepted=all(
                given >= PASS
                for reward, column in zip(rewards, columns, strict=True)
                if reward.binary and reward.weight > 0 and (given := column[place]) is not None
            ),
        )
        for place in range(len(answers))
    ]


def _ask(reward: Reward, answers: Sequence[Answer]) -> Sequence[Score]:
    try:
        scores = reward.verifier(answers)
    except VerifierFailed:
        raise
    except AnswerUnjudged as error:
        raise VerifierFailed(
            f"{reward.name} failed at line {error.line}: {error}", verifier=reward.name, line=error.line
        ) from error
    except Exception as error:
        raise VerifierFailed(
            f"{reward.name} raised {type(error).__name__}: {str(error)[:200]}", verifier=reward.name
        ) from error
    if len(scores) != len(answers):
        raise VerifierFailed(
            f"{reward.name} gave {len(scores)} scores for {len(answers)} answers", verifier=reward.name
        )
    for answer, given in zip(answers, scores, strict=True):
        if given is not None and not (isinstance(given, int | float) and math.isfinite(given)):
            line = answer.case.line
            raise VerifierFailed(
                f"{reward.name} gave {str(given)[:40]!s}, no finite number, at line {line}",
                verifier=reward.name,
                line=line,
            )
    return scores
