"""Requests that were begun and never ended: an intent is on disk, an outcome is not."""

from pathlib import Path

from registry.errors import InvalidDocument
from router.records.record import Record
from router.records.segments import read_lines, segments_of

_ID = b'"id":"'


def unfinished(folder: Path) -> list[Record]:
    """The newest intent of each, of all writers below ``folder``.

    The router was killed while an engine worked on it, or is alive and works on it still. What cannot be read
    is a fault that :func:`router.records.verify_records` names.
    """
    writers = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [record for writer in writers for record in _of(writer)]


def _of(writer: Path) -> list[Record]:
    begun: dict[bytes, bytes] = {}
    for segment in segments_of(writer):
        for line in read_lines(segment):
            start = line.data.find(_ID) + len(_ID)
            identity = line.data[start : line.data.find(b'"', start)]
            if b'"event":"intent"' in line.data:
                begun[identity] = line.data
            else:
                begun.pop(identity, None)
    found = []
    for data in begun.values():
        try:
            found.append(Record.parse(data))
        except InvalidDocument:
            continue
    return found
