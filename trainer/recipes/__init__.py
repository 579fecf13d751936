"""What a person writes."""

from trainer.recipes.load import LoadedRecipe, load_recipe, parse_recipe
from trainer.recipes.lora import LoraSettings
from trainer.recipes.methods import SftSettings
from trainer.recipes.schema import (
    METRICS,
    DataFiles,
    EvaluationSettings,
    GateSettings,
    Recipe,
    json_schema,
)

__all__ = [
    "METRICS",
    "DataFiles",
    "EvaluationSettings",
    "GateSettings",
    "LoadedRecipe",
    "LoraSettings",
    "Recipe",
    "SftSettings",
    "json_schema",
    "load_recipe",
    "parse_recipe",
]
