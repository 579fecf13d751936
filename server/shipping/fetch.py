"""fetch: shipped records back into folders as routers write them, so that every command that reads those can.

Nothing is judged here: what was changed where it was kept is a fault that :mod:`router.records.verify` finds
against the heads in the log, as on a router's own disk.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

from registry.errors import AlreadyExists
from registry.ports import Shelf
from registry.shipping import MOST_LINES

_NAME = re.compile(r"(?P<writer>[a-z0-9][a-z0-9-]{0,62})/[0-9]{15}-[0-9]{15}\.parquet", re.ASCII)


class Source(Protocol):
    def batches(self) -> Iterator[tuple[str, Iterator[Sequence[bytes]]]]:
        """Each writer with its lines in order, some at a time."""
        ...


class Catalog(Protocol):
    def shipped_writers(self) -> tuple[str, ...]: ...
    def shipped_lines(self, writer: str, first: int, most: int) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class ShelfSource:
    shelf: Shelf
    decoded: Callable[[bytes], Sequence[bytes]]

    def batches(self) -> Iterator[tuple[str, Iterator[Sequence[bytes]]]]:
        found = filter(None, (_NAME.fullmatch(piece.name) for piece in self.shelf.list("")))
        for writer, names in groupby(
            sorted(found, key=lambda name: name[0]), key=lambda name: name["writer"]
        ):
            yield writer, (self.decoded(self.shelf.get(name[0])) for name in names)


@dataclass(frozen=True, slots=True)
class RegistrySource:
    catalog: Catalog

    def batches(self) -> Iterator[tuple[str, Iterator[Sequence[bytes]]]]:
        for writer in self.catalog.shipped_writers():
            yield writer, self._of(writer)

    def _of(self, writer: str) -> Iterator[Sequence[bytes]]:
        first = 0
        while lines := self.catalog.shipped_lines(writer, first, MOST_LINES):
            yield [line.encode() for line in lines]
            first += len(lines)


def fetch(source: Source, folder: Path) -> dict[str, int]:
    """Writer -> how many records are in its folder now. A folder is there whole or not at all.

    Raises AlreadyExists; what ``source`` raises.
    """
    counts = {}
    for writer, batches in source.batches():
        if (folder / writer).exists():
            raise AlreadyExists(f"{folder / writer} is there already", hint="name a folder that is empty")
        part = folder / f".{writer}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True, mode=0o700)
        counts[writer] = 0
        for number, lines in enumerate(batches):
            with os.fdopen(
                os.open(part / f"{number:06d}.jsonl", os.O_WRONLY | os.O_CREAT, 0o600), "wb"
            ) as out:
                out.writelines(line + b"\n" for line in lines)
            counts[writer] += len(lines)
        part.replace(folder / writer)
    return counts
