"""What a method is given and what it gives back: one vocabulary for all of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from trainer.recipes.lora import LoraSettings
from trainer.recipes.sources import Endpoint
from trainer.recipes.training import Training
from trainer.rewards import Reward
from trainer.scale import Scale
from trainer.trackers import Tracker

S = TypeVar("S", bound=Training)
R = TypeVar("R")

StepDone = Callable[[int, dict[str, float]], None]
"""Called after each step (from 1) with its figures."""


@dataclass(frozen=True, slots=True)
class TeacherModel:
    """Who is imitated: weights in ``base_folder`` (with ``adapter_folder`` on them), or an ``endpoint``."""

    base_folder: Path | None = None
    adapter_folder: Path | None = None
    endpoint: Endpoint | None = None
    endpoint_key: str | None = None


@dataclass(frozen=True, slots=True)
class Job(Generic[S, R]):
    """One training, everything decided. ``rows`` have the shape that the method learns from."""

    settings: S
    rows: tuple[R, ...]
    file: str
    """How errors call the file that the rows come from."""
    base_folder: Path
    lora: LoraSettings
    seed: int
    out: Path
    """Where the adapter goes, as PEFT saves it."""
    scratch: Path
    """Survives a crash: snapshots, and answers that were expensive to get."""
    snapshot_every: float = 60.0
    """Seconds of training that a crash may cost."""
    start: Path | None = None
    """The adapter that training continues; its reference too."""
    teacher: TeacherModel | None = None
    rewards: tuple[Reward, ...] = ()
    scale: Scale = field(default_factory=Scale)
    """``settings.batch_size`` is what all its processes learn from together."""
    trackers: tuple[Tracker, ...] = ()
    """Experiment trackers that are told each step; see ``trainer.learning.tracking``."""
    tracking: Path | None = None
    """Where those that write files write them."""
    on_step: StepDone = field(default=lambda step, figures: None)
    note: Callable[[str], None] = field(default=lambda text: None)
    """One sentence worth reading that stops nothing: an alarm, a warning."""


@dataclass(frozen=True, slots=True)
class Learned:
    """``folder`` holds what PEFT saved; ``proof`` is kept with the run and shown in its report: what was
    checked on the very batches that were learned."""

    folder: Path
    proof: dict[str, Any]
