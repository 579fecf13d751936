"""The exposure question, asked of a workspace."""

from collections.abc import Iterator
from pathlib import Path

from registry.catalog.local import LocalCatalog
from registry.log.entries import Entry
from router.records.verify import verify_records
from server.assembly.catalog import open_catalog
from server.exposure.boots import told
from server.exposure.judge import Exposure, Question, Unjudged, judge
from server.workspace import Workspace

_PAGE = 1000


def exposure(workspace: Workspace, question: Question, *, records: Path | None = None) -> Exposure:
    """``records``: the routers' folders, default the workspace's. The log is checked first: of one that was
    changed, nothing that it tells can be used, and all answers are unjudged."""
    catalog = open_catalog(workspace)
    folder = records or workspace.records
    faults = verify_records(folder, catalog.trusted(), catalog.record_heads())
    found = judge(folder, told(_entries(catalog)), question, faults)
    for fault in catalog.verify(state=False):
        found.unjudged.append(Unjudged("log", question.since, question.until, str(fault)))
    return found


def _entries(catalog: LocalCatalog) -> Iterator[Entry]:
    start = 0
    while page := catalog.entries(start, _PAGE):
        yield from page
        start = page[-1].index + 1
