"""Everything that can be proved about a workspace, in one pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.catalog.audit import Progress, no_progress
from registry.log.verify import Fault
from registry.models import RecordHead
from registry.signing.envelope import Envelope
from router.records.record import Record
from router.records.segments import read_lines, segments_of
from router.records.unfinished import unfinished
from router.records.verify import verify_records
from server.assembly.catalog import open_auditor
from server.assembly.proved_log import beginnings
from server.assembly.trust import log_keys
from server.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Audit:
    faults: tuple[Fault, ...]
    entries: int
    blobs: int
    records: int
    unsealed: int
    """Newest records under no logged head yet: a router signs one every few seconds, and at its stop."""
    begins: Mapping[str, int]
    """Writer -> seq of its first record, of those whose older ones were pruned."""
    unfinished: tuple[Record, ...] = ()
    """Intents without an outcome. No fault of the chain: their router was killed, or is still at work."""


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
        begun: list[Record] = []
        begins: dict[str, int] = {}
        if records:
            begins = beginnings(workspace.records, (folder.name for folder in _writers(workspace)))
            lines = sum(
                1 for folder in _writers(workspace) for path in segments_of(folder) for _ in read_lines(path)
            )
            heads = auditor.record_heads()
            found = verify_records(workspace.records, auditor.signers(), heads)
            unsealed = max(0, sum(begins.values()) + lines - sum(_covered(heads).values()))
            begun = unfinished(workspace.records)
            faults += [Fault(where=f"records {fault.file}", what=str(fault)) for fault in found]
        stored = sum(1 for _ in auditor.blobs.digests()) if blobs else 0
        return Audit(
            tuple(faults),
            entries=auditor.log_size(),
            blobs=stored,
            records=lines,
            unsealed=unsealed,
            begins=begins,
            unfinished=tuple(begun),
        )


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
