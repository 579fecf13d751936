"""Watching a run: every step's figures, and the death that shows no NaN."""

import math
from collections.abc import Mapping
from typing import Any, Final

from trainer.errors import TrainingDiverged
from trainer.learning.job import StepDone

_PATIENCE: Final = 3
"""Steps in a row at ln(vocabulary) with no gradient before a run is called dead."""

_NAMES: Final = {
    "grad_norm": "gradient_norm",
    "mean_token_accuracy": "token_accuracy",
}
_SILENT: Final = frozenset({"epoch", "num_tokens", "total_flos", "step_time"})
"""What says nothing about learning, or differs between two runs of the same plan."""


class Watch:
    """Hands each step's figures on and stops a run that has died."""

    def __init__(
        self,
        uniform: float,
        on_step: StepDone,
        *,
        cross_entropy: str | None = None,
        may_rest: bool = False,
    ) -> None:
        """``uniform``: the cross-entropy of a model that knows nothing, ln(vocabulary). ``cross_entropy``
        names the figure that is one: the whole loss, or a part of it that pulls at every step; losses of
        preferences, rewards and divergences have none. ``may_rest``: without a gradient the run is not dead,
        as in reinforcement learning, where equal rewards give none and an alarm of their own."""
        self._uniform = uniform
        self._cross_entropy = cross_entropy
        self._may_rest = may_rest
        self._on_step = on_step
        self._dead = 0

    def saw(self, step: int, logged: Mapping[str, Any]) -> None:
        """Raises TrainingDiverged."""
        figures = {
            _NAMES.get(name, name): float(value)
            for name, value in logged.items()
            if isinstance(value, int | float) and name not in _SILENT
        }
        loss, gradient = figures.get("loss", 0.0), figures.get("gradient_norm", 0.0)
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            raise TrainingDiverged(f"step {step}: the loss is {loss} and the gradient {gradient}", step=step)
        # Divergence often shows no NaN: logits go flat, the loss sits at ln(vocabulary), nothing moves.
        likelihood = figures.get(self._cross_entropy or "", 0.0)
        flat = likelihood > 0.9 * self._uniform and gradient < 1e-3
        # A gradient of exactly nought means that nothing trained is connected. Not every trainer tells one.
        still = figures.get("gradient_norm") == 0.0 and not self._may_rest
        self._dead = self._dead + 1 if flat or still else 0
        if self._dead >= _PATIENCE:
            nothing = f"that of a model which knows nothing ({self._uniform:.2f})"
            where = nothing if flat else "wherever it was"
            place = likelihood if flat else loss
            raise TrainingDiverged(
                f"step {step}: the loss sits at {place:.2f}, {where}, and there is no gradient to leave it",
                step=step,
            )
        self._on_step(step, figures)


def callback(watch: Watch) -> Any:
    """``watch`` as a callback of transformers' Trainer."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc]  # transformers is not followed, so it is Any
        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any
        ) -> None:
            if logs and "loss" in logs:
                watch.saw(state.global_step, logs)

    return Callback()
