"""The exposure question, asked of a workspace, or of a control plane and a folder of records."""

from pathlib import Path

from registry.catalog.local.catalog import LocalCatalog
from registry.errors import InvalidInput, LogForked
from registry.log.entries import Entry
from router.records.verify import verify_records
from server.assembly.place import Place
from server.assembly.proved_log import proved_entries, record_heads, writers
from server.errors import FolderNeeded
from server.exposure.boots import told
from server.exposure.judge import Exposure, Question, Unjudged, judge


def exposure(at: Place, question: Question, *, records: Path | None = None) -> Exposure:
    """``records``: the routers' folders, default the workspace's. The log is checked first: of one that was
    changed, nothing that it tells can be used, and all answers are unjudged.

    Raises TenantNotFound and InvalidInput: of what is not there "0 answers" would be a false comfort.
    """
    if question.since > question.until:
        raise InvalidInput("--since is after --until", hint="name the earlier moment in --since")
    if question.tenant is not None:
        at.catalog.tenant(question.tenant)
    if records is not None:
        writers(records)
        folder = records
    elif at.workspace is not None:
        folder = at.workspace.records
    else:
        raise FolderNeeded("a control plane holds no records", hint="name a router's folder with --records")
    entries: list[Entry] = []
    faults = []
    try:
        proved_entries(at.catalog, {}, entries.append)
    except LogForked as error:
        faults.append(error.message)
    if isinstance(at.catalog, LocalCatalog):
        faults = [str(fault) for fault in at.catalog.verify(state=False)]
    found = judge(
        folder,
        told(iter(entries)),
        question,
        verify_records(folder, at.catalog.trusted(), record_heads(entries)),
    )
    for fault in faults:
        found.unjudged.append(Unjudged("log", question.since, question.until, fault))
    return found
