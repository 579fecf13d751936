"""Which of several answers to a question are worth learning: verified, filtered, picked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from trainer.datasets import Case, Conversation, Message
from trainer.endpoint import Reply
from trainer.rewards import Answer, Reward, Scored, score
from trainer.rewards.length import count_words
from trainer.rewards.score import PASS

Keep: TypeAlias = Literal["all", "best", "shortest"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer and what the verifiers say of it. ``unusable`` says why it could not be learned even if they
    liked it."""

    text: str
    scored: Scored
    unusable: str | None = None

    @property
    def accepted(self) -> bool:
        return self.unusable is None and self.scored.accepted


@dataclass(frozen=True, slots=True)
class Tried:
    """A question and all its answers."""

    case: Case
    attempts: tuple[Attempt, ...]

    @property
    def pass_rate(self) -> float:
        return sum(attempt.accepted for attempt in self.attempts) / len(self.attempts)


@dataclass(frozen=True, slots=True)
class Tally:
    """Kept with a run and shown in its report."""

    questions: int
    answered: int
    accepted: int
    learned: int
    rejected: dict[str, int] = field(default_factory=dict)
    """Reason or verifier -> answers it turned down; one answer may count for several verifiers."""

    def as_json(self) -> dict[str, Any]:
        return {
            "questions": self.questions,
            "answered": self.answered,
            "accepted": self.accepted,
            "learned": self.learned,
            "rejected": self.rejected,
        }

    def __str__(self) -> str:
        turned = ", ".join(f"{name} {count}" for name, count in self.rejected.items())
        return (
            f"{self.questions} questions, {self.answered} answers, {self.accepted} accepted, "
            f"{self.learned} learned" + (f" (turned down: {turned})" if turned else "")
        )


def try_answers(
    rewards: Sequence[Reward],
    cases: Sequence[Case],
    replies: Sequence[Sequence[Reply]],
    *,
    control_tokens: Sequence[str] = (),
) -> tuple[Tried, ...]:
    """Every answer verified; ``replies`` stand in the order of the cases. Raises VerifierFailed."""
    answers = [
        Answer(case, reply.text.strip(), finished=reply.finished)
        for case, several in zip(cases, replies, strict=True)
        for reply in several
    ]
    scored = iter(score(rewards, answers))
    return tuple(
        Tried(
            case,
            tuple(
                Attempt(reply.text.strip(), next(scored), _unusable(reply, control_tokens))
                for reply in several
            ),
        )
        for case, several in zip(cases, replies, strict=True)
    )


def _unusable(reply: Reply, control_tokens: Sequence[str]) -> str | None:
    if not reply.finished:
        return "cut_off"  # learned, it would teach to stop in the middle
    if reply.calls:
        return "tool_call"  # without the tool's result it is no final answer
    if not reply.text.strip():
        return "empty"
    if any(token in reply.text for token in control_tokens):
        return "control_token"
    return None


def within(pass_rate: float, bounds: tuple[float, float]) -> bool:
    """Above the first bound and up to the second; with no accepted answer there is nothing to learn."""
    return pass_rate > 0 and bounds[0] <= pass_rate <= bounds[1]


def pick(attempts: Iterable[Attempt], keep: Keep) -> tuple[Attempt, ...]:
    """Of the accepted ones: all different ones, the one of the highest reward (the earliest of equals), or
    the one with the fewest words."""
    accepted = list({attempt.text: attempt for attempt in attempts if attempt.accepted}.values())
    if not accepted or keep == "all":
        return tuple(accepted)
    if keep == "best":
        return (max(accepted, key=lambda attempt: attempt.scored.total),)
    return (min(accepted, key=lambda attempt: (count_words(attempt.text), len(attempt.text))),)


def select(
    tried: Sequence[Tried],
    rewards: Sequence[Reward],
    *,
    keep: Keep,
    pass_rate: tuple[float, float] = (0.0, 1.0),
) -> tuple[tuple[Conversation, ...], Tally]:
    """What is to be learned, and the figures of how it came about."""
    chosen = tuple(
        Conversation((*one.case.prompt, Message("assistant", attempt.text)), one.case.line, one.case.tools)
        for one in tried
        if within(one.pass_rate, pass_rate)
        for attempt in pick(one.attempts, keep)
    )
    attempts = [attempt for one in tried for attempt in one.attempts]
    accepted = sum(attempt.accepted for attempt in attempts)
    return chosen, Tally(len(tried), len(attempts), accepted, len(chosen), _rejected(attempts, rewards))


def _rejected(attempts: Sequence[Attempt], rewards: Sequence[Reward]) -> dict[str, int]:
    reasons = [attempt.unusable for attempt in attempts if attempt.unusable is not None]
    counts = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
    for reward in rewards:
        if reward.binary and reward.weight > 0:
            counts[reward.name] = sum(
                (given := attempt.scored.scores[reward.name]) is not None and given < PASS
                for attempt in attempts
            )
    return {name: count for name, count in counts.items() if count}
