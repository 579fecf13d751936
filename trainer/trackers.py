"""Which experiment trackers a training can tell. None is a dependency: who uses one has it installed."""

from enum import StrEnum


class Tracker(StrEnum):
    """The value is also the name of the package that brings it."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"
