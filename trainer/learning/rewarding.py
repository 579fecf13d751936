"""From drawn answers to rewards: the verifiers' scores, what they sum to, and the figures of a step."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trainer.errors import VerifierFailed
from trainer.evaluation.answers import NOT_JSON, parse_answer
from trainer.learning.rollouts import Rollout
from trainer.rewards import Reward, Scored, score

EQUAL: Final = 1e-6
"""Rewards of a group that lie closer together than this teach nothing."""


@dataclass(frozen=True, slots=True)
class Rewarded:
    """One answer, its scores by reward name and what training makes of them."""

    rollout: Rollout
    scored: Scored
    total: float


@dataclass(frozen=True, slots=True)
class Overlong:
    """DAPO's soft punishment: nothing up to ``limit - margin`` tokens, then falling in a line to -1 at
    ``limit`` (arXiv:2503.14476, equation 13; the margin is a fifth of the whole, as there)."""

    limit: int

    @property
    def margin(self) -> int:
        return max(1, self.limit // 5)

    def __call__(self, tokens: int) -> float:
        return max(-1.0, min(0.0, (self.limit - self.margin - tokens) / self.margin))


def reward(
    rewards: Sequence[Reward], rollouts: Sequence[Rollout], *, overlong: Overlong | None = None
) -> list[Rewarded]:
    """Raises VerifierFailed, also for a question that no counting reward has anything to say about: its
    group would be rewarded with nought, and learned as if that meant something."""
    scored = score(rewards, [rollout.answer for rollout in rollouts])
    counting = {reward.name for reward in rewards if reward.weight}
    for rollout, one in zip(rollouts, scored, strict=True):
        if all(one.scores[name] is None for name in counting):
            line = rollout.prompt.case.line
            raise VerifierFailed(f"no reward applies to line {line}", verifier=", ".join(sorted(counting)))
    return [
        Rewarded(rollout, one, one.total + (overlong(rollout.length) if overlong else 0.0))
        for rollout, one in zip(rollouts, scored, strict=True)
    ]


def groups(rewarded: Sequence[Rewarded], size: int) -> list[Sequence[Rewarded]]:
    return [rewarded[start : start + size] for start in range(0, len(rewarded), size)]


def undecided(group: Sequence[Rewarded]) -> bool:
    """Whether every member was rewarded the same: such a group has no advantages."""
    totals = [one.total for one in group]
    return max(totals) - min(totals) < EQUAL


def figures(rewarded: Sequence[Rewarded], *, group_size: int) -> dict[str, float]:
    """What one draw came to, of the model's own answers. ``reward.<name>`` is the mean where that verifier
    applies."""
    own = [one for one in rewarded if not one.rollout.given]
    totals = [one.total for one in own]
    lengths = [one.rollout.length for one in own]
    found = {
        "reward": statistics.fmean(totals),
        "reward_std": statistics.pstdev(totals),
        "length": statistics.fmean(lengths),
        "length_min": float(min(lengths)),
        "length_max": float(max(lengths)),
        "truncated": statistics.fmean(not one.rollout.answer.finished for one in own),
        "valid_json": statistics.fmean(parse_answer(one.rollout.answer.text) is not NOT_JSON for one in own),
    }
    if group_size > 1:
        found["zero_variance"] = statistics.fmean(undecided(group) for group in groups(rewarded, group_size))
    for name in rewarded[0].scored.scores:
        given = [value for one in own if (value := one.scored.scores[name]) is not None]
        if given:
            found[f"reward.{name}"] = statistics.fmean(given)
    return found
