"""What the demo trains from, as files a person would bring: rows, cases, answer schema and recipe."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from server.demo import corpus

_HERE = Path(__file__).parent
_ROWS = {"bank_a": 400, "retail_b": 800, "saas_c": 400}
"""Enough for policy-correct answers to every held-out phrasing (measured: 99 % and more)."""
_CASES = 96
_SEED = 7


def write_data(folder: Path, tenant: corpus.Tenant) -> Path:
    """``train.jsonl``, ``cases.jsonl``, ``schema.json`` and ``recipe.yaml``, whose path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    _jsonl(folder / "train.jsonl", corpus.tenant_rows(tenant, _ROWS[tenant], _SEED))
    _jsonl(folder / "cases.jsonl", corpus.tenant_cases(tenant, _CASES, _SEED))
    shutil.copyfile(_HERE / "policies" / f"{tenant}.json", folder / "schema.json")
    recipe = folder / "recipe.yaml"
    shutil.copyfile(_HERE / "recipes" / f"{tenant}.yaml", recipe)
    return recipe


def _jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
