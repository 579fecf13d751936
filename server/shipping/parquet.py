"""Records as a Parquet table: a typed column for each field, and the digest of the exact line."""

import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from registry import canonical
from registry.clock import stamp
from registry.digests import Digest
from router.records.record import Record

_MOMENTS = ("at", "last_at", "started_at")


def schema() -> pa.Schema:
    """Follows the record's own fields, so that what a record gains becomes a column."""
    fields = [pa.field(name, _type(name, field.annotation)) for name, field in Record.model_fields.items()]
    return pa.schema([*fields, pa.field("digest", pa.string())])


def encoded(lines: Sequence[bytes]) -> bytes:
    """Raises InvalidDocument for what is no record."""
    rows = []
    for line in lines:
        row: dict[str, Any] = dict(Record.parse(line)) | {"digest": str(Digest.of(line))}
        for name in _MOMENTS:
            row[name] = datetime.fromisoformat(row[name]) if row[name] else None
        rows.append(row)
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema()), out, compression="zstd")
    return out.getvalue()


def decoded(data: bytes) -> list[bytes]:
    """The lines, as their digests say that they were; one that fits none is for the chain's check to find."""
    lines = []
    for row in pq.ParquetFile(io.BytesIO(data)).read().to_pylist():
        digest = row.pop("digest")
        for name in _MOMENTS:
            row[name] = stamp(row[name]) if row[name] else None
        fields = Record.build(row).model_dump(mode="json")
        line = canonical.encode(fields)
        if Digest.of(line) != digest and fields.pop("canary") is None:
            older = canonical.encode(fields)  # from before records said it
            line = older if Digest.of(older) == digest else line
        lines.append(line)
    return lines


def newest(data: bytes) -> Digest:
    """Of the last record in an encoded batch."""
    column = pq.ParquetFile(io.BytesIO(data)).read(columns=["digest"])["digest"]
    return Digest(column[len(column) - 1].as_py())


def _type(name: str, annotation: Any) -> pa.DataType:
    if name in _MOMENTS:
        return pa.timestamp("us", tz="UTC")
    kinds = {annotation, *get_args(annotation)} - {type(None)}
    if bool in kinds:
        return pa.bool_()
    if int in kinds:
        return pa.int64()
    return pa.list_(pa.string()) if name == "finish_reasons" else pa.string()
