"""What a person writes."""

from trainer.recipes.load import LoadedRecipe, load_recipe, parse_recipe
from trainer.recipes.schema import (
    METRICS,
    DataFiles,
    EvaluationSettings,
    GateSettings,
    LoraSettings,
    Recipe,
    SftSettings,
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
