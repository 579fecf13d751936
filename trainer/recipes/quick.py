"""A recipe from the command line, for a first try; ``--save`` writes it down for the second."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.recipes.load import LoadedRecipe, parse_recipe


def quick_recipe(
    method: str,
    *,
    tenant: str,
    adapter: str,
    base: str,
    data: str,
    evaluation: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    overrides: Sequence[str] = (),
    folder: Path,
) -> LoadedRecipe:
    """Files are relative to ``folder``. Raises RecipeInvalid, as a written recipe would."""
    files = {"train": data, "evaluation": evaluation, "columns": dict(columns or {})}
    text = json.dumps(
        {
            "kind": "tenon.recipe/v1",
            "tenant": tenant,
            "adapter": adapter,
            "base": base,
            "method": method,
            "data": {name: value for name, value in files.items() if value},
        },
        indent=1,
    )
    recipe = parse_recipe(text, name="command line", overrides=overrides)
    return LoadedRecipe(recipe, folder / "command line")


def write_recipe(loaded: LoadedRecipe, path: Path) -> None:
    """The recipe with everything that was said, and nothing that is a default."""
    import yaml

    said = loaded.recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    path.write_text(yaml.safe_dump(said, sort_keys=False, allow_unicode=True), encoding="utf-8")
