"""What GRPO and RLOO share of TRL: a trainer that learns from answers drawn by us."""

from collections.abc import Sequence
from typing import Any, Final

from trainer.learning.base import needed_libraries
from trainer.learning.drawing import Draw, Drawn
from trainer.learning.monitors import Monitor
from trainer.learning.rollouts import Prompt

_OF_TRL: Final = {"kl": "kl", "entropy": "entropy", "clip_ratio/region_mean": "clipped"}
"""Figures of TRL that are kept, under our names. The rest is computed from the draw itself."""


def prompt_dataset(order: Sequence[int]) -> Any:
    """A row for each group: which prompt it asks. TRL never sees the words."""
    with needed_libraries():
        from datasets import Dataset
    return Dataset.from_dict({"prompt": [""] * len(order), "row": list(order)})


def drawn_trainer(base: Any, drawn: Drawn, draw: Draw, prompts: Sequence[Prompt], monitor: Monitor) -> Any:
    """``base`` (a trainer class of TRL) that draws through ``draw`` before each of its batches."""

    class DrawnTrainer(base):  # type: ignore[misc]  # TRL is not followed, so it is Any
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            model = self.accelerator.unwrap_model(self.model)
            asked = [prompts[one["row"]] for one in inputs]
            drawn.keep(draw(model, asked, self.state.global_step))
            return super()._generate_and_score_completions(inputs)

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            measured = self._metrics["train"]
            if "loss" in logs:
                found = drawn.figures()
                kept = {ours: measured[theirs] for theirs, ours in _OF_TRL.items() if measured.get(theirs)}
                measured.clear()
                measured.update({name: [value] for name, value in found.items()} | kept)
                if found:
                    means = {name: sum(values) / len(values) for name, values in kept.items()}
                    monitor.saw(self.state.global_step, found | means)
            super().log(logs, start_time)

    return DrawnTrainer
