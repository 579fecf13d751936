"""DAPO's dynamic sampling (arXiv:2503.14476, 3.2): groups whose rewards are all equal are replaced before the
step. TRL only logs their share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from trainer.learning.drawing import Draw
from trainer.learning.rewarding import Rewarded, groups, undecided
from trainer.learning.rollouts import Prompt


@dataclass(slots=True)
class DynamicSampling:
    """``draw`` again with further prompts until every group has something to teach, at most ``rounds`` times.

    What cannot be replaced stays: it teaches nothing, and does no harm. Which prompts come next depends on
    the seed and the step alone, so that a run picked up after a crash draws what it would have drawn.
    """

    draw: Draw
    prompts: Sequence[Prompt]
    group_size: int
    rounds: int
    seed: int
    told: Callable[[int, int], None] = field(default=lambda replaced, left: None)
    """Called after each draw with the groups replaced and those that were left."""

    def __call__(self, model: Any, prompts: Sequence[Prompt], step: int) -> list[Rewarded]:
        kept = groups(self.draw(model, prompts, step), self.group_size)
        replaced = 0
        for turn in range(self.rounds):
            silent = [place for place, group in enumerate(kept) if undecided(group)]
            if not silent:
                break
            random = Random(f"further:{self.seed}:{step}:{turn}")  # noqa: S311 - an order, not a secret
            further = random.choices(self.prompts, k=len(silent))
            asked = [prompt for prompt in further for _ in range(self.group_size)]
            found = groups(self.draw(model, asked, step), self.group_size)
            for place, group in zip(silent, found, strict=True):
                if not undecided(group):
                    kept[place] = group
                    replaced += 1
        self.told(replaced, sum(undecided(group) for group in kept))
        return [one for group in kept for one in group]
