"""values.schema.json and values.yaml, and where a dotted value name is described."""

import json
from typing import Any

import yaml

from tests.chart.charts import CHART


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return loaded


def defaults() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


def at(value: str) -> dict[str, Any]:
    """The schema of a value such as ``engine.maxLoras``."""
    found = schema()
    for name in value.split("."):
        found = found["properties"][name]
    return found
