"""The recipes that ship with Tenon: one for each method, with data to run on the demo base."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from trainer.errors import BuiltinNotFound

FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Builtin:
    name: str
    method: str
    shows: str
    """The first sentence of the comment on top of it."""


def names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def describe(name: str) -> Builtin:
    """Raises BuiltinNotFound."""
    text = _path(name).read_text(encoding="utf-8")
    comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    return Builtin(name, str(yaml.safe_load(text)["method"]), comment.partition(". ")[0].rstrip("."))


def copy(name: str, folder: Path) -> tuple[Path, ...]:
    """Write the recipe, those it builds on and their data under ``folder``; the files, in that order.

    Files that are there already are replaced. Raises BuiltinNotFound.
    """
    written: dict[Path, None] = {}
    waiting = [_path(name)]
    while waiting:
        source = waiting.pop(0)
        target = folder / source.relative_to(FOLDER)
        if target in written:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        written[target] = None
        if source.suffix == ".yaml":
            waiting += [FOLDER / other for other in _needs(yaml.safe_load(source.read_text("utf-8")))]
    return tuple(written)


def _needs(value: Any) -> Iterator[str]:
    """Every text in a recipe that names a file beside it."""
    if isinstance(value, dict):
        for part in value.values():
            yield from _needs(part)
    elif isinstance(value, list):
        for part in value:
            yield from _needs(part)
    elif isinstance(value, str) and "\n" not in value and len(value) < 200 and (FOLDER / value).is_file():
        yield value


def _path(name: str) -> Path:
    path = FOLDER / f"{name}.yaml"
    if name not in names():
        raise BuiltinNotFound(f"there is no built-in recipe {name[:60]!r}")
    return path
