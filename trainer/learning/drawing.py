"""One draw of reinforcement learning: prompts in groups, answers, rewards. TRL learns from what it gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from trainer.learning.rewarding import Overlong, Rewarded, figures, reward
from trainer.learning.rollouts import Prompt, Rollout
from trainer.rewards import Reward

Draw: TypeAlias = Callable[[Any, Sequence[Prompt], int], list[Rewarded]]
"""(model, prompts in groups, step from 0) -> as many rewarded answers, in groups."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Answers to prompts, rewarded."""

    ask: Callable[[Any, Sequence[Prompt]], list[Rollout]]
    rewards: Sequence[Reward]
    overlong: Overlong | None = None

    def __call__(self, model: Any, prompts: Sequence[Prompt], step: int) -> list[Rewarded]:
        return reward(self.rewards, self.ask(model, prompts), overlong=self.overlong)


def arrange_prompts(rows: int, *, wanted: int, seed: int) -> list[int]:
    """Indices of ``wanted`` prompts: whole passes over all rows, each in another order."""
    random = Random(f"prompts:{seed}")  # noqa: S311 - an order, not a secret
    stream: list[int] = []
    while len(stream) < wanted:
        one = list(range(rows))
        random.shuffle(one)
        stream += one
    return stream[:wanted]


@dataclass(slots=True)
class Drawn:
    """The newest draw, as TRL's trainers ask for it."""

    group_size: int
    newest: list[Rewarded] = field(default_factory=list)
    _unread: bool = False

    def keep(self, rewarded: list[Rewarded]) -> None:
        self.newest, self._unread = rewarded, True

    def figures(self) -> dict[str, float]:
        """Of a draw that nobody has asked about yet; several steps may learn from one draw."""
        if not self._unread:
            return {}
        self._unread = False
        return figures(self.newest, group_size=self.group_size)

    def prompt_ids(self) -> list[list[int]]:
        return [list(one.rollout.prompt.ids) for one in self.newest]

    def said(self) -> list[list[int]]:
        return [list(one.rollout.said) for one in self.newest]

    def own(self) -> list[list[int]] | None:
        """The masks, if anybody but the model has spoken."""
        masks = [list(one.rollout.own) for one in self.newest]
        return masks if any(0 in mask for mask in masks) else None

    def totals(self) -> list[float]:
        return [one.total for one in self.newest]
