"""``tenon log verify``: the whole log here, one that was kept, or one tenant's part in a file."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli import render
from server.cli.options import At, Json, place, root, where

if TYPE_CHECKING:
    from registry.models import PublicKey
    from registry.signing.envelope import Envelope
    from router.records.record import Record
    from server.assembly.log_checks import Log
    from server.assembly.place import Place

_SHOWN = 10
"""Ids of unfinished requests; ``--json`` has all."""


def verify(
    file: Annotated[Path | None, typer.Option("--file", help="A tenant's export, and nothing else")] = None,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="Log keys that you got on another way (tenon log keys), and no others"),
    ] = None,
    since: Annotated[
        Path | None, typer.Option("--since", help="A head that you kept: prove that the log only grew")
    ] = None,
    state: Annotated[bool, typer.Option(help="Also compare the tables with a replay of all entries")] = True,
    blobs: Annotated[bool, typer.Option(help="Also read every stored blob")] = True,
    no_records: Annotated[bool, typer.Option("--no-records", help="Leave out the request records")] = False,
    records: Annotated[
        Path | None,
        typer.Option(
            "--records", help="Check only the request records in this folder, such as a router's own volume"
        ),
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Check the whole history: entries, signed heads, state, blobs and request records."""
    kept = {"state": state, "blobs": blobs, "records": not no_records}
    left_out = [name for name, on in kept.items() if not on]
    if records is not None:
        _refuse("--records reads records alone", left_out, file=file, since=since)
        found = _records(place(workspace), records, trust, json=json)
        if json:
            render.data(found)
        _raise(found, "record")
        return
    if file is not None:
        _refuse("--file reads one file alone", left_out, since=since, workspace=workspace)
        _file(file, trust, json=json)
        return
    from server.assembly.place import is_url

    if since is not None and is_url(where(workspace)):
        _refuse("a URL shows its heads alone", left_out)
        found = _remote(place(workspace), since, trust, json=json)
    else:
        found = _folder(root(workspace), since, trust, left_out, json=json)
    if json:
        render.data(found)
    _raise(found)


def _refuse(why: str, left_out: Sequence[str], **given: object) -> None:
    """What would have no effect must not look as if it had one."""
    named = [f"--no-{name}" for name in left_out]
    named += [f"--{name}" for name, value in given.items() if value is not None]
    if named:
        raise typer.BadParameter(f"{why}: leave out {', '.join(named)}")


def _file(file: Path, trust: Path | None, *, json: bool) -> None:
    from registry.errors import LogExportInvalid
    from server.assembly.log_checks import check_export

    result = check_export(file, trust=trust)
    if json:
        render.data(
            {
                "ok": not result.faults,
                "tenant": result.tenant,
                "entries": result.entries,
                "head": result.head.model_dump(mode="json"),
                "trusted": result.trusted,
                "complete": result.complete,
                "proven": result.proven(),
                "unproven": result.unproven(),
                "faults": list(result.faults),
            }
        )
    if result.faults:
        raise LogExportInvalid(f"{len(result.faults)} fault(s) found", faults=list(result.faults))
    if not json:
        for line in result.proven():
            render.note(f"proven: {line}")
        for line in result.unproven():
            render.note(f"not proven: {line}")


def _records(at: "Place", folder: Path, trust: Path | None, *, json: bool) -> dict[str, Any]:
    from registry.log.entries import Entry
    from server.assembly.proved_log import check_folder, proved_entries, record_heads, writers
    from server.assembly.trust import read_keys

    writers(folder)  # a folder that is not there is told before a long log is read
    given = {} if trust is None else read_keys(trust)
    routers = {name: key for name, key in given.items() if key.role == "router"} or at.catalog.trusted()
    heads: list[Envelope] = []

    def take(entry: Entry) -> None:
        heads.extend(record_heads((entry,)))

    log_keys = {name: key for name, key in given.items() if key.role == "log"}
    size = proved_entries(at.catalog, log_keys, take)
    checked = check_folder(folder, routers, heads)
    if not json and not checked.faults:
        render.note(f"ok: {checked.records} request records verified against a log of {size} entries")
        if checked.unsealed:
            render.note(f"the newest {checked.unsealed} records are not under a signed head yet")
        if checked.elsewhere:
            render.note(f"not here, and not looked at: the records of {', '.join(checked.elsewhere)}")
        if not log_keys:
            render.note("not proven: who signed: give the log key, got on another way, with --trust")
    _begins(checked.begins, json=json)
    _unfinished(checked.unfinished, json=json)
    return {
        "ok": not checked.faults,
        "trusted": bool(log_keys),
        "entries": size,
        "records": checked.records,
        "unsealed": checked.unsealed,
        "begins": dict(checked.begins),
        "elsewhere": list(checked.elsewhere),
        "unfinished": _shown(checked.unfinished),
        "faults": [{"where": f"records {fault.file}", "what": str(fault)} for fault in checked.faults],
    }


def _remote(at: "Place", since: Path, trust: Path | None, *, json: bool) -> dict[str, Any]:
    from server.assembly.log_checks import read_head
    from server.assembly.trust import read_log_keys

    kept, trusted = read_head(since), {} if trust is None else read_log_keys(trust)
    found = _since(at.catalog, kept, trusted, json=json)
    if trust is None and not json:
        render.note("not proven: who signed: give the log key, got on another way, with --trust")
    return found | {"trusted": trust is not None}


def _folder(
    folder: Path, since: Path | None, trust: Path | None, left_out: Sequence[str], *, json: bool
) -> dict[str, Any]:
    from server.assembly.audit import audit
    from server.assembly.catalog import open_auditor
    from server.assembly.log_checks import read_head
    from server.assembly.trust import log_keys
    from server.workspace import find

    workspace = find(folder)
    found: dict[str, Any] = {}
    if since is not None:
        kept, trusted = read_head(since), log_keys(workspace, trust)
        with open_auditor(workspace) as auditor:
            found |= _since(auditor, kept, trusted, json=json)
    parts = {name: name not in left_out for name in ("state", "blobs", "records")}
    with _bar("log") as progress:
        result = audit(workspace, trust=trust, progress=progress, **parts)
    if not json and not result.faults:
        counts = f"{result.entries} entries, {result.blobs} blobs, {result.records} request records"
        render.note(f"ok: {counts} verified")
        if result.unsealed:
            render.note(f"the newest {result.unsealed} records are not under a signed head yet")
        if trust is None:
            render.note("against the log key in this folder: --trust takes one got on another way")
    _begins(result.begins, json=json)
    _unfinished(result.unfinished, json=json)
    return found | {
        "ok": not result.faults,
        "trusted": trust is not None,
        "entries": result.entries,
        "blobs": result.blobs,
        "records": result.records,
        "begins": dict(result.begins),
        "unfinished": _shown(result.unfinished),
        "faults": [{"where": fault.where, "what": fault.what} for fault in result.faults],
    }


def _begins(begins: Mapping[str, int], *, json: bool) -> None:
    for writer, seq in begins.items() if not json else ():
        render.note(f"{writer} begins with record {seq} here: those before it were pruned, and not looked at")


def _unfinished(records: "Sequence[Record]", *, json: bool) -> None:
    if not records or json:
        return
    ids = [record.id for record in records]
    shown = ", ".join([*ids[:_SHOWN], *(["…"] if len(ids) > _SHOWN else [])])
    render.note(f"{len(ids)} requests have an intent and no outcome ({shown})")
    render.note("their router was killed, or is still at work on them")


def _shown(records: "Sequence[Record]") -> list[dict[str, Any]]:
    names = ("id", "at", "writer", "tenant", "version", "engine")
    return [{name: getattr(record, name) for name in names} for record in records]


def _since(log: "Log", kept: "Envelope", trusted: "Mapping[str, PublicKey]", *, json: bool) -> dict[str, Any]:
    from server.assembly.log_checks import check_since

    old, new, proof = check_since(log, kept, trusted=trusted)
    if not json:
        render.note(f"ok: the log of {new.size} entries continues the one of {old.size} that you kept")
    return {"ok": True, "faults": [], "since": proof.model_dump(mode="json")}


def _raise(found: Mapping[str, Any], what: str = "log") -> None:
    from registry.errors import LogCorrupt, RecordCorrupt

    if found["faults"]:
        lines = [f"{fault['where']}: {fault['what']}" for fault in found["faults"]]
        raise (RecordCorrupt if what == "record" else LogCorrupt)(
            f"{len(lines)} fault(s) found", faults=lines
        )


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Entries read, on stderr; without a terminal, nothing until it is done."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
