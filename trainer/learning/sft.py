"""Supervised fine-tuning of a LoRA with TRL, on rows and an order that were decided beforehand."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainer.datasets import Example
from trainer.errors import TrainingDiverged
from trainer.learning.base import best_device, load_model, load_tokenizer, needed_libraries, surroundings
from trainer.learning.batches import arrange
from trainer.learning.lora import check_targets, lora_config
from trainer.learning.masks import MaskProof, prove
from trainer.learning.rows import Row, make_rows
from trainer.recipes.schema import LoraSettings, SftSettings

StepDone = Callable[[int, dict[str, float]], None]
"""Called after each step (from 1) with its figures."""

_PATIENCE: Final = 3
"""Steps in a row at ln(vocabulary) with no gradient before a run is called dead."""

_SCHEDULES: Final = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


@dataclass(frozen=True, slots=True)
class Learned:
    """``folder`` holds what PEFT saved; ``steps`` the figures of every step."""

    folder: Path
    steps: tuple[dict[str, float], ...]
    masks: MaskProof


def learn(
    examples: Sequence[Example],
    *,
    file: str,
    base_folder: Path,
    out: Path,
    lora: LoraSettings,
    sft: SftSettings,
    seed: int,
    on_step: StepDone,
) -> Learned:
    """Train an adapter and save it to ``out`` (and nothing else).

    The masks are proven on the trainer's own batches before the first step. On one machine, the same
    arguments give the same bytes. Raises the leaves of TrainingRefused, and TrainingDiverged.
    """
    with surroundings(seed=seed):
        tokenizer = load_tokenizer(base_folder)
        rows = make_rows(tokenizer, examples, max_length=sft.max_length, file=file)
        order = arrange(
            [len(row.input_ids) for row in rows], steps=sft.steps, batch_size=sft.batch_size, seed=seed
        )
        device = best_device()
        model = load_model(base_folder, device=device, half=device == "cuda")
        check_targets(model, lora)
        trainer, watch = _trainer(
            model,
            tokenizer,
            rows,
            order,
            lora=lora,
            sft=sft,
            seed=seed,
            scratch=out,
            device=device,
            on_step=on_step,
        )
        masks = prove(tokenizer, examples, trainer.get_train_dataloader(), order=order)
        trainer.train()
        trainer.model.save_pretrained(str(out), safe_serialization=True)
    return Learned(out, tuple(watch.steps), masks)


def _trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    order: Sequence[int],
    *,
    lora: LoraSettings,
    sft: SftSettings,
    seed: int,
    scratch: Path,
    device: str,
    on_step: StepDone,
) -> tuple[Any, "_Watch"]:
    with needed_libraries():
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl import SFTConfig, SFTTrainer

    ready = Dataset.from_dict(
        {"input_ids": [list(row.input_ids) for row in rows], "labels": [list(row.labels) for row in rows]}
    ).select(list(order))
    on_gpu = device == "cuda"
    config = SFTConfig(
        output_dir=str(scratch),
        max_steps=sft.steps,
        per_device_train_batch_size=sft.batch_size,
        learning_rate=sft.learning_rate,
        lr_scheduler_type=_SCHEDULES[sft.schedule],
        warmup_steps=sft.warmup_steps,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=seed,
        data_seed=seed,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        fp16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        # The rows are tokenised, labelled and in order: TRL must neither cut, mask nor shuffle them.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        train_sampling_strategy="sequential",
        shuffle_dataset=False,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a NaN loss must be seen, not smoothed over
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        eval_strategy="no",
    )
    watch = _Watch(math.log(model.config.vocab_size), on_step)
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=ready,
        processing_class=tokenizer,
        peft_config=lora_config(lora),
        callbacks=[_callback(watch)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, watch


class _Watch:
    """Collects each step's figures and stops a run that has died."""

    def __init__(self, uniform: float, on_step: StepDone) -> None:
        """``uniform``: the loss of a model that knows nothing, ln(vocabulary)."""
        self._uniform = uniform
        self._on_step = on_step
        self._dead = 0
        self.steps: list[dict[str, float]] = []

    def saw(self, step: int, loss: float, gradient: float, rate: float, accuracy: float | None) -> None:
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            raise TrainingDiverged(f"step {step}: the loss is {loss} and the gradient {gradient}", step=step)
        # Divergence often shows no NaN: logits go flat, the loss sits at ln(vocabulary), nothing moves.
        flat = loss > 0.9 * self._uniform and gradient < 1e-3
        self._dead = self._dead + 1 if flat else 0
        if self._dead >= _PATIENCE:
            raise TrainingDiverged(
                f"step {step}: the loss sits at {loss:.2f}, that of a model which knows nothing "
                f"({self._uniform:.2f}), and there is no gradient to leave it",
                step=step,
            )
        shown = {"loss": loss} if accuracy is None else {"loss": loss, "token_accuracy": accuracy}
        self.steps.append({"step": step, **shown, "gradient_norm": gradient, "learning_rate": rate})
        self._on_step(step, shown)


def _callback(watch: _Watch) -> Any:
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc]  # transformers is not followed, so it is Any
        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any
        ) -> None:
            if logs and "loss" in logs:
                watch.saw(
                    state.global_step,
                    float(logs["loss"]),
                    float(logs.get("grad_norm", 0.0)),
                    float(logs.get("learning_rate", 0.0)),
                    float(logs["mean_token_accuracy"]) if "mean_token_accuracy" in logs else None,
                )

    return Callback()
