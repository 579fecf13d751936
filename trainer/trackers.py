"""Which experiment trackers a training can tell. None is a dependency: who uses one has it installed."""

from typing import Final

PACKAGES: Final = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""Tracker -> the package that brings it."""
