"""Receipts as files: checked against keys or a workspace, and given their proof in the registry's log."""

import base64
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.catalog.local.catalog import LocalCatalog
from registry.catalog.projection import RECORDS_HEAD
from registry.digests import Digest
from registry.errors import ReceiptInvalid
from registry.log.entries import Entry, Head
from registry.log.merkle import leaf_hash, root
from registry.log.proofs import inclusion_proof
from registry.log.statements import digest, raw
from registry.log.tiles import Tiles
from registry.models import PublicKey, RecordHead
from registry.signing.envelope import Envelope
from router.receipts import Receipt, Sealing, verify_receipt, verify_sealing
from router.records.record import Record
from router.records.segments import Line, read_lines, segments_of
from router.records.start import beginning
from router.records.verify import verify_records
from server.assembly.catalog import open_catalog
from server.assembly.place import Catalog
from server.assembly.proved_log import proved_entries
from server.assembly.trust import read_keys
from server.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Verified:
    record: Record
    sealed: Head | None
    """The head of the registry's log that the receipt proves to commit to the record."""


def verify_receipt_file(file: Path, *, trust: Path | None, workspace: Workspace | None) -> Verified:
    """What a receipt proves. With a workspace, its line must also stand in the record chain.

    Raises ReceiptInvalid, SignatureInvalid; says exactly what does not fit.
    """
    data = _read(file)
    if workspace is None:
        trusted = _trust(trust)
        return Verified(verify_receipt(data, trusted), verify_sealing(data, trusted))
    catalog = open_catalog(workspace)
    trusted = catalog.trusted()
    record = verify_receipt(data, trusted)
    found = verify_records(workspace.records, trusted, catalog.record_heads())
    if broken := [str(fault) for fault in found if fault.file.partition("/")[0] == record.writer]:
        raise ReceiptInvalid("the record chain it belongs to is damaged", faults=broken)
    line = base64.b64decode(Receipt.parse(data).record)
    _require_here(workspace.records / record.writer, record.seq)
    if _digests(workspace.records / record.writer, record.seq, record.seq) != [Digest.of(line)]:
        raise ReceiptInvalid(f"record {record.id} is not in the chain of {record.writer}")
    return Verified(record, verify_sealing(data, trusted))


def prove_receipt(file: Path, *, catalog: Catalog, records: Path) -> Receipt:
    """The receipt with the proof that the registry's log commits to its record. ``records``: where the folder
    of its writer is. Raises ReceiptInvalid when no head with a root covers it (yet), or when the stored
    records are not those of the head."""
    data = _read(file)
    trusted = catalog.trusted()
    record = verify_receipt(data, trusted)
    entry = _head_over(catalog, record)
    if entry is None:
        raise ReceiptInvalid(
            f"no head in the log covers record {record.seq} of {record.writer}",
            hint="a router signs one every few seconds; those of older routers prove no single record",
        )
    head = RecordHead.parse(Envelope.build(entry.body["envelope"]).body())
    first = head.first or 0
    _require_here(records / head.writer, first)
    lines = _digests(records / head.writer, first, head.seq)
    leaves = [leaf_hash(raw(each)) for each in lines]
    if len(leaves) != head.seq - first + 1 or digest(root(leaves)) != head.root:
        raise ReceiptInvalid(
            f"the records of {head.writer} are not those that the head of seq {head.seq} signs"
        )
    log_head = catalog.head()
    tiles = Tiles(
        lambda height, start, end: [root(leaves[i << height : (i + 1) << height]) for i in range(start, end)],
        size=len(leaves),
    )
    inclusion = catalog.inclusion(entry.index, Head.parse(log_head.body()).size)
    sealing = Sealing(
        entry=entry.canonical().decode(),
        path=tuple(digest(node) for node in inclusion_proof(tiles, record.seq - first, tiles.size)),
        inclusion=inclusion.proof,
        log_head=log_head,
    )
    sealed = Receipt.parse(data).model_copy(update={"sealing": sealing})
    verify_sealing(sealed.canonical(), trusted)
    return sealed


def _head_over(catalog: Catalog, record: Record) -> Entry | None:
    """The oldest entry whose head has the record under its root. From afar the log is read for it, and
    proved."""
    if isinstance(catalog, LocalCatalog):
        return catalog.record_head_over(record.writer, record.seq)
    found: list[Entry] = []

    def look(entry: Entry) -> None:
        if not found and entry.kind == RECORDS_HEAD and entry.subject == record.writer:
            head = RecordHead.parse(Envelope.build(entry.body["envelope"]).body())
            if head.first is not None and head.first <= record.seq <= head.seq:
                found.append(entry)

    proved_entries(catalog, {}, look)
    return found[0] if found else None


def _require_here(folder: Path, seq: int) -> None:
    """A receipt is proved by all records under the head over it. Raises ReceiptInvalid."""
    start = beginning(folder, folder.name)
    if seq < start.seq:
        raise ReceiptInvalid(
            f"record {seq} of {folder.name} was pruned: its chain begins with record {start.seq} here",
            hint="verify the receipt with --trust; prove it with what was shipped: tenon record fetch",
        )


def _digests(folder: Path, first: int, last: int) -> list[Digest]:
    """Of the stored lines ``first`` to ``last``; fewer when some are missing. Lines are numbered from 0."""
    found: list[Digest] = []
    files = segments_of(folder)
    starts = [_seq_of(next(read_lines(file), None)) for file in files]
    for number, file in enumerate(files):
        after = starts[number + 1] if number + 1 < len(files) else None
        if (after is not None and after <= first) or starts[number] > last:
            continue
        for seq, line in enumerate(read_lines(file), start=starts[number]):
            if first <= seq <= last:
                found.append(Digest.of(line.data))
    return found


def _seq_of(line: Line | None) -> int:
    """Of the first line of a segment; of none, beyond everything."""
    return Record.parse(line.data).seq if line is not None else sys.maxsize


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ReceiptInvalid(f"cannot read {file}: {error.strerror}") from None


def _trust(path: Path | None) -> Mapping[str, PublicKey]:
    if path is None:
        raise ReceiptInvalid("nothing to trust", hint="give --trust KEYS.json or --workspace FOLDER")
    return read_keys(path)
