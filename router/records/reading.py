"""Lines of a running router's own chain, read again from disk a block at a time."""

from collections.abc import Sequence
from pathlib import Path

import orjson

from registry.errors import RecordCorrupt
from router.records.segments import Place, read_lines, segments_of
from router.records.start import beginning

BLOCK = 256 << 10
"""Bytes: about 250 lines, which take a loop half a millisecond to look through."""


def find(folder: Path, seq: int) -> tuple[Place, int]:
    """(where a line is that has at most ``seq``, how many lines come before it). Raises RecordCorrupt."""
    for file in reversed(segments_of(folder)):
        first = first_seq(file)
        if first is not None and first <= seq:
            return Place(int(file.stem), 0), first
    start = beginning(folder, folder.name)
    if seq < start.seq:
        raise RecordCorrupt(f"record {seq} of {folder.name} was pruned: the chain begins with {start.seq}")
    return Place(start.segment, 0), start.seq


def read(folder: Path, place: Place, most: int) -> tuple[Sequence[bytes], Place]:
    """At most ``most`` lines from ``place`` on, of one segment, and where the next one begins."""
    file = folder / f"{place.segment:06d}.jsonl"
    with file.open("rb") as stream:
        stream.seek(place.offset)
        data = stream.read(BLOCK)
    lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)[:most]
    if lines:
        return lines, Place(place.segment, place.offset + sum(len(line) for line in lines))
    after = Place(place.segment + 1, 0)
    if len(data) == BLOCK or not (folder / f"{after.segment:06d}.jsonl").exists():
        raise RecordCorrupt(f"the chain ends at byte {place.offset} of {file.name}, before its last line")
    return (), after


def first_seq(file: Path) -> int | None:
    """None for a segment without a line. Raises RecordCorrupt."""
    line = next(read_lines(file), None)
    if line is None or not line.whole:
        return None
    try:
        return int(orjson.loads(line.data)["seq"])
    except (ValueError, KeyError, TypeError):
        raise RecordCorrupt(f"the first line of {file.name} is no record") from None
