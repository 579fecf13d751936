"""From a recipe file (and ``-o key=value`` overrides) to a frozen Recipe, or every fault with its line."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from registry.canonical import Document
from trainer.errors import Fault, RecipeInvalid
from trainer.recipes.schema import Recipe
from trainer.recipes.yaml import KeyPath, Parsed, dotted, parse

_LARGEST: Final = 1 << 20
"""Bytes of a recipe; a person does not write more."""


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A recipe and the file it stands in; the names of other files are relative to that."""

    recipe: Recipe
    file: Path

    def path(self, relative: str) -> Path:
        return self.file.parent / relative


def load_recipe(path: Path, *, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read and check ``path``; raises RecipeInvalid with all faults.

    ``overrides`` are ``sft.steps=120`` pairs and win over the file; values are YAML.
    """
    try:
        raw = path.read_bytes()
        if len(raw) > _LARGEST:
            raise RecipeInvalid(path.name, (Fault(path.name, "is larger than 1 MiB"),))
        text = raw.decode("utf-8")
    except OSError as error:
        raise RecipeInvalid(path.name, (Fault(path.name, error.strerror or "cannot be read"),)) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RecipeInvalid(path.name, (Fault(f"{path.name}:{line}", "is not UTF-8"),)) from None
    return LoadedRecipe(parse_recipe(text, name=path.name, overrides=overrides), path)


def parse_recipe(text: str, *, name: str = "recipe.yaml", overrides: Sequence[str] = ()) -> Recipe:
    """The same from text; ``name`` is how faults call the file."""
    parsed = parse(text)
    if parsed.faults:
        raise RecipeInvalid(name, tuple(Fault(f"{name}:{line}", what) for line, what in parsed.faults))
    if not isinstance(parsed.value, dict):
        raise RecipeInvalid(name, (Fault(f"{name}:1", "must be a mapping of keys to values"),))
    origins: dict[KeyPath, str] = {}
    faults = [fault for pair in overrides for fault in _override(parsed, pair, origins)]
    if faults:
        raise RecipeInvalid(name, tuple(faults))
    try:
        return Recipe.model_validate_json(json.dumps(parsed.value))
    except ValidationError as error:
        details = error.errors(include_url=False)
        found = [_fault(detail, name, parsed, origins) for detail in details if not _echo(detail, details)]
        found.sort(key=lambda pair: pair[0])
        raise RecipeInvalid(name, tuple(fault for _, fault in found)) from None


def _override(parsed: Parsed, pair: str, origins: dict[KeyPath, str]) -> list[Fault]:
    where = f"-o {pair}"
    key, equals, text = pair.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        return [Fault(where, "write key=value, such as sft.steps=120")]
    value = parse(text)
    if value.faults:
        return [Fault(where, what) for _, what in value.faults]
    place = parsed.value
    for depth, part in enumerate(path[:-1], start=1):
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            return [Fault(where, f"{dotted(path[:depth])} is not a mapping")]
    place[path[-1]] = value.value
    origins[path] = where
    return []


def _echo(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """A list is "too short" once its items have failed: only the items are worth telling."""
    place = detail["loc"]
    return detail["type"] == "too_short" and any(
        other["loc"][: len(place)] == place and len(other["loc"]) > len(place) for other in details
    )


def _fault(detail: ErrorDetails, name: str, parsed: Parsed, origins: dict[KeyPath, str]) -> tuple[int, Fault]:
    """(line to sort by, fault). Pydantic's place may end in names of union arms: they are cut off."""
    place: KeyPath = tuple(detail["loc"])
    missing = detail["type"] == "missing"
    known = place[:-1] if missing else place
    while known and known not in parsed.lines and known not in origins:
        known = known[:-1]
    shown = place if missing else known
    origin = next((origins[known[:n]] for n in range(len(known), 0, -1) if known[:n] in origins), None)
    line = parsed.lines.get(known, 1)
    what = _words(detail, place)
    return line, Fault(origin or f"{name}:{line}", f"{dotted(shown)}: {what}" if shown else what)


def _words(detail: ErrorDetails, place: KeyPath) -> str:  # noqa: PLR0911, PLR0912 - a table
    context: dict[str, Any] = detail.get("ctx") or {}
    match detail["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            near = difflib.get_close_matches(str(place[-1]), _keys_at(place[:-1]), n=1, cutoff=0.6)
            return "is not a known key" + (f"; did you mean {near[0]}?" if near else "")
        case "greater_than":
            return f"must be > {context['gt']:g}"
        case "greater_than_equal":
            return f"must be >= {context['ge']:g}"
        case "less_than":
            return f"must be < {context['lt']:g}"
        case "less_than_equal":
            return f"must be <= {context['le']:g}"
        case "literal_error":
            return f"must be {context['expected']}{_nearest(detail['input'], context['expected'])}"
        case "int_type" | "int_from_float" | "int_parsing":
            return "must be a whole number"
        case "float_type":
            return "must be a number"
        case "bool_type":
            return "must be true or false"
        case "string_type":
            return "must be text (put it in quotes)"
        case "string_pattern_mismatch":
            return "must be 1 to 63 of a-z, 0-9, '_' and '-', starting with a letter or digit"
        case "string_too_short" | "too_short":
            return "must not be empty"
        case "tuple_type":
            return "must be a list"
        case "model_type" | "model_attributes_type":
            return "must be a mapping of keys to values"
        case "value_error":
            return str(context["error"])
        case _:
            return detail["msg"][:1].lower() + detail["msg"][1:]


def _nearest(given: object, expected: str) -> str:
    words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    near = difflib.get_close_matches(str(given), words, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _keys_at(place: KeyPath) -> list[str]:
    """The keys the schema knows at ``place``."""
    model: type[BaseModel] = Recipe
    for part in place:
        if isinstance(part, int):
            continue
        named = {field.alias or name: field for name, field in model.model_fields.items()}
        inner = _document_in(named[part].annotation) if part in named else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _document_in(annotation: Any) -> type[Document] | None:
    """The document class inside an annotation such as ``X``, ``X | None`` or ``tuple[X, ...]``."""
    if get_origin(annotation) is None:
        return annotation if isinstance(annotation, type) and issubclass(annotation, Document) else None
    return next((found for part in get_args(annotation) if (found := _document_in(part))), None)
