"""Write the data of the built-in recipes; ``tests`` hold what ships to what this writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server.demo import corpus
from server.demo.tasks import distillation, preference, reinforcement, supervised

_FAMILIES: tuple[Any, ...] = (distillation, supervised, preference, reinforcement)


def contents() -> Iterator[tuple[str, str]]:
    """(file name, content) of every data file."""
    for family in _FAMILIES:
        for name, content in family.files().items():
            yield name, content if isinstance(content, str) else corpus.to_jsonl(content)


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    from trainer import recipes

    write(Path(recipes.__file__).parent / "builtin" / "data")
