"""Everything that can be proved about a workspace, in one pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.catalog.audit import Progress, no_progress
from registry.errors import ReceiptInvalid
from registry.log.verify import Fault
from registry.models import PublicKey, RecordHead
from registry.signing.envelope import Envelope
from router.receipts import verify_receipt
from router.records.record import Record
from router.records.segments import read_lines, segments_of
from router.records.verify import verify_records
from server.assembly.catalog import open_auditor, open_catalog
from server.assembly.trust import log_keys, read_keys
from server.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Audit:
    faults: tuple[Fault, ...]
    entries: int
    blobs: int
    records: int
    unsealed: int
    """Newest records under no logged head yet: a router signs one every few seconds, and at its stop."""


def audit(
    workspace: Workspace,
    *,
    blobs: bool,
    records: bool,
    state: bool = True,
    trust: Path | None = None,
    progress: Progress = no_progress,
) -> Audit:
    """The log, its signed heads, the state derived from it, every blob, and the request records.

    ``trust``: a file of log keys; without it the workspace's own key counts, which whoever owns the workspace
    could have signed another history with.
    """
    trusted = log_keys(workspace, trust)
    with open_auditor(workspace) as auditor:
        faults = auditor.verify(trusted, blobs=blobs, state=state, progress=progress)
        lines = unsealed = 0
        if records:
            lines = sum(
                1 for folder in _writers(workspace) for path in segments_of(folder) for _ in read_lines(path)
            )
            heads = auditor.record_heads()
            found = verify_records(workspace.records, auditor.signers(), heads)
            unsealed = max(0, lines - sum(_covered(heads).values()))
            faults += [Fault(where=f"records {fault.file}", what=str(fault)) for fault in found]
        stored = sum(1 for _ in auditor.blobs.digests()) if blobs else 0
        return Audit(
            tuple(faults), entries=auditor.log_size(), blobs=stored, records=lines, unsealed=unsealed
        )


def verify_receipt_file(file: Path, *, trust: Path | None, workspace: Workspace | None) -> Record:
    """The record a receipt proves. With a workspace, its line must also stand in the record chain.

    Raises ReceiptInvalid, SignatureInvalid; says exactly what does not fit.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ReceiptInvalid(f"cannot read {file}: {error.strerror}") from None
    if workspace is None:
        return verify_receipt(data, _trust(trust))
    catalog = open_catalog(workspace)
    trusted = catalog.trusted()
    record = verify_receipt(data, trusted)
    found = verify_records(workspace.records, trusted, catalog.record_heads())
    if broken := [str(fault) for fault in found if fault.file.partition("/")[0] == record.writer]:
        raise ReceiptInvalid("the record chain it belongs to is damaged", faults=broken)
    for path in segments_of(workspace.records / record.writer):
        for line in read_lines(path):
            if line.data == record.canonical():
                return record
    raise ReceiptInvalid(f"record {record.id} is not in the chain of {record.writer}")


def _writers(workspace: Workspace) -> list[Path]:
    if not workspace.records.is_dir():
        return []
    return sorted(path for path in workspace.records.iterdir() if path.is_dir())


def _covered(heads: Iterable[Envelope]) -> dict[str, int]:
    """Writer -> how many of its records the newest logged head covers."""
    covered: dict[str, int] = {}
    for envelope in heads:
        head = RecordHead.parse(envelope.body())
        covered[head.writer] = max(covered.get(head.writer, 0), head.seq + 1)
    return covered


def _trust(path: Path | None) -> Mapping[str, PublicKey]:
    if path is None:
        raise ReceiptInvalid("nothing to trust", hint="give --trust KEYS.json or --workspace FOLDER")
    return read_keys(path)
