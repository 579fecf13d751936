"""Experiment trackers: transformers' own callbacks, told where to write. They watch and change nothing."""

import contextlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final

from trainer.errors import LibrariesMissing
from trainer.learning import together
from trainer.learning.base import needed_libraries
from trainer.learning.job import Job
from trainer.trackers import Tracker

_DATABASE: Final = "/mlflow.db"
"""MLflow 3.17 refuses its plain files ("in maintenance mode")."""


def callbacks(job: Job[Any, Any]) -> list[Any]:
    """One for each of the job's trackers, in the leading process. Raises LibrariesMissing."""
    if not together.leads():
        return []
    with _random_numbers_kept():
        return [_start(name, job) for name in job.trackers]


def _start(name: Tracker, job: Job[Any, Any]) -> Any:
    assert job.tracking is not None
    job.tracking.mkdir(parents=True, exist_ok=True)
    try:
        return _STARTERS[name](job)
    except ModuleNotFoundError as error:
        raise LibrariesMissing(
            f"{error.name} is not installed, and --track {name} needs it",
            hint=f"install it with: pip install {name}",
            library=error.name,
        ) from None


def _tensorboard(job: Job[Any, Any]) -> Any:
    import_module("tensorboard")  # torch would say less clearly that it is missing
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(tb_writer=SummaryWriter(log_dir=str(job.tracking)))


def _wandb(job: Job[Any, Any]) -> Any:
    """Project, key and mode come from W&B's own WANDB_ variables."""
    wandb = import_module("wandb")
    from transformers.integrations import WandbCallback

    class Callback(WandbCallback):  # type: ignore[misc]  # transformers is not followed, so it is Any
        def on_train_end(self, *arguments: Any, **rest: Any) -> None:
            super().on_train_end(*arguments, **rest)
            wandb.finish()  # or the next training of this process would write into the same run

    wandb.init(dir=str(job.tracking))  # transformers goes on with a run that is open
    return Callback()


def _mlflow(job: Job[Any, Any]) -> Any:
    """MLFLOW_TRACKING_URI says where; without it, a database beside the run."""
    mlflow = import_module("mlflow")
    from transformers.integrations import MLflowCallback

    # An earlier training of this process has set it, too.
    if not mlflow.is_tracking_uri_set() or mlflow.get_tracking_uri().endswith(_DATABASE):
        assert job.tracking is not None
        mlflow.set_tracking_uri(f"sqlite:///{job.tracking.absolute()}{_DATABASE}")
    return MLflowCallback()


_STARTERS: Final[dict[Tracker, Callable[[Job[Any, Any]], Any]]] = {
    Tracker.TENSORBOARD: _tensorboard,
    Tracker.WANDB: _wandb,
    Tracker.MLFLOW: _mlflow,
}


@contextlib.contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Trackers draw names for their runs; the training must not draw other numbers for it."""
    import random

    with needed_libraries():
        import numpy as np
        import torch
    states = (random.getstate(), np.random.get_state(), torch.random.get_rng_state())
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])
