"""What every method does around its own trainer: load, configure, watch, pick up after a crash, save."""

import math
from dataclasses import dataclass
from typing import Any, Final

from trainer.learning import sharding, together
from trainer.learning.base import best_device, load_model, load_tokenizer, needed_libraries, quantized_model
from trainer.learning.job import Job, Learned
from trainer.learning.lora import check_targets, lora_config
from trainer.learning.snapshots import SNAPSHOTS, Snapshots
from trainer.learning.tracking import callbacks
from trainer.learning.watch import Watch, callback

_SCHEDULES: Final = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


@dataclass(frozen=True, slots=True)
class Session:
    """A loaded base, ready for a trainer of TRL.

    ``peft_config`` describes the fresh adapter that the trainer adds; None when ``model`` continues one.
    """

    model: Any
    tokenizer: Any
    peft_config: Any
    device: str

    @property
    def uniform(self) -> float:
        """The cross-entropy of a model that knows nothing."""
        return math.log(self.model.config.vocab_size)


def open_session(job: Job[Any, Any]) -> Session:
    """Raises NoLinearTargets."""
    device = best_device()
    if job.lora.quantization == "nf4":
        model = quantized_model(job.base_folder, device=device)
    else:
        # A base that is sharded is one that a single device may not hold.
        place = "cpu" if job.scale.sharded else device
        model = load_model(job.base_folder, device=place, half=device == "cuda")
    check_targets(model, job.lora)
    if job.start is None:
        return Session(model, load_tokenizer(job.base_folder), lora_config(job.lora), device)
    with needed_libraries():
        from peft import PeftModel
    adapted = PeftModel.from_pretrained(model, str(job.start), is_trainable=True)
    return Session(adapted, load_tokenizer(job.base_folder), None, device)


def arguments(job: Job[Any, Any], session: Session) -> dict[str, Any]:
    """What the configuration of every TRL trainer has in common (transformers' TrainingArguments)."""
    settings = job.settings
    on_gpu = session.device == "cuda"
    return {
        "output_dir": str(job.scratch / SNAPSHOTS),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.batch_size // job.scale.processes,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": _SCHEDULES[settings.schedule],
        "warmup_steps": settings.warmup_steps,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": job.seed,
        "data_seed": job.seed,
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "fp16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a NaN loss must be seen, not smoothed over
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",  # Snapshots decides when
        "eval_strategy": "no",
        **(sharding.arguments(session.model) if job.scale.sharded else {}),
        **({} if job.scale.processes == 1 else together.arguments(session.device)),
    }


def finish(
    job: Job[Any, Any],
    session: Session,
    trainer: Any,
    *,
    proof: dict[str, Any],
    cross_entropy: str | None = None,
    may_rest: bool = False,
    stride: int = 1,
) -> Learned:
    """Train (from the last snapshot, if a crash left one) and save the adapter.

    ``cross_entropy`` names the figure that is one, if the loss has such a part: sitting at ln(vocabulary)
    then means death. ``may_rest`` says that having no gradient does not. Snapshots are taken after multiples
    of ``stride`` steps.
    Raises TrainingDiverged.
    """
    from transformers import PrinterCallback

    watch = Watch(session.uniform, job.on_step, cross_entropy=cross_entropy, may_rest=may_rest)
    snapshots = Snapshots(job.scratch / SNAPSHOTS, every=job.snapshot_every)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(callback(watch))
    for tracker in callbacks(job):
        trainer.add_callback(tracker)
    if job.scale.sharded:
        # Its snapshots would be pieces that only as many processes can put together: it begins again instead.
        sharding.shard(trainer)
        trainer.train()
        save(trainer.model, job, state=sharding.whole(trainer.model_wrapped))
        return Learned(job.out, proof)
    trainer.add_callback(snapshots.callback(stride=stride))
    trainer.train(resume_from_checkpoint=together.agreed(snapshots.latest))
    save(trainer.model, job)
    return Learned(job.out, proof)


def save(model: Any, job: Job[Any, Any], *, state: dict[str, Any] | None = None) -> None:
    """The trained adapter alone: TRL keeps its reference in a second one, ``ref``. One process writes it."""
    if together.leads():
        model.save_pretrained(
            str(job.out), safe_serialization=True, selected_adapters=["default"], state_dict=state
        )
