"""``tenon log``"""

from collections import deque
from typing import Annotated

import typer

from server.cli import log_export, log_verify, render
from server.cli.options import At, Json, place, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="The append-only log of every change, and its proofs.", no_args_is_help=True)
    group.command("show")(show)
    group.command("verify")(log_verify.verify)
    group.command("head")(head)
    group.command("prove")(prove)
    group.command("consistency")(consistency)
    group.command("export")(log_export.export)
    group.command("keys")(keys)
    group.command("rotate-key")(rotate_key)
    app.add_typer(group, name="log")


def show(
    last: Annotated[int, typer.Option("--last", min=1, help="How many entries")] = 20,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's entries")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show the newest entries."""
    from registry.log.entries import Entry, Head

    at = place(workspace)
    if tenant is None and at.remote is not None:
        tenant = at.remote.whoami().tenant
    found: deque[Entry] = deque(maxlen=last)
    size = Head.parse(at.catalog.head().body()).size
    start = 0 if tenant is not None else max(0, size - last)
    while page := at.catalog.entries(start, 1000, tenant=tenant):
        found.extend(page)
        start = page[-1].index + 1
    if json:
        render.data([entry.model_dump(mode="json") for entry in found])
    else:
        render.table(
            "",
            ["entry", "at", "who", "what", "on"],
            [[str(e.index), e.at, e.actor, e.kind, e.subject] for e in found],
        )


def head(
    size: Annotated[int | None, typer.Option("--size", min=1, help="The one over so many entries")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show the newest signed head. Keep it (--json): verify --since FILE proves that the log only grew."""
    from registry.log.entries import Head

    envelope = place(workspace).catalog.head(size)
    if json:
        render.data(envelope.model_dump(mode="json"))
        return
    signed = Head.parse(envelope.body())
    by = ", ".join(signature.keyid for signature in envelope.signatures)
    tenants = str(signed.tenants.size) if signed.tenants else "-"
    columns = ["entries", "root", "at", "tenants", "signed by"]
    render.table("", columns, [[str(signed.size), signed.root, signed.at, tenants, by]])


def prove(
    entry: Annotated[int, typer.Argument(min=0, help="Index of the entry")],
    size: Annotated[int | None, typer.Option("--size", min=1, help="In the log of so many entries")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Prove that an entry is in the log (RFC 9162, 2.1.3)."""
    from registry.errors import LogCorrupt
    from registry.log.entries import Head

    catalog = place(workspace).catalog
    # Of the newest signed head, so that the root of the proof is a signed one.
    envelope = catalog.head(size)
    signed = Head.parse(envelope.body())
    found = catalog.inclusion(entry, signed.size)
    if not found.holds() or found.root != signed.root:
        raise LogCorrupt(f"entry {entry} is not in the log that the head of size {signed.size} signs")
    if json:
        render.data({"inclusion": found.model_dump(mode="json"), "head": envelope.model_dump(mode="json")})
    else:
        render.note(f"ok: entry {entry} is in the log of {signed.size} entries, root {signed.root}")
        render.table("", ["leaf", "hashes in the proof"], [[found.leaf, str(len(found.proof))]])


def consistency(
    first: Annotated[int, typer.Argument(min=0, help="Entries then")],
    second: Annotated[int | None, typer.Argument(min=0, help="Entries later [default: now]")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Prove that the log only grew between two sizes (RFC 9162, 2.1.4)."""
    from registry.errors import LogForked

    found = place(workspace).catalog.consistency(first, second)
    if not found.holds():
        raise LogForked(f"the log of {found.second} entries does not begin with that of {found.first}")
    if json:
        render.data(found.model_dump(mode="json"))
    else:
        render.note(f"ok: the log of {found.second} entries begins with that of {found.first}")
        rows = [[str(found.first), found.first_root], [str(found.second), found.second_root]]
        render.table("", ["entries", "root"], rows)


def keys(json: Json = False, workspace: At = None) -> None:
    """Print the public keys that this registry trusts, as --trust options read them: as JSON in any case."""
    trusted = place(workspace).catalog.trusted()
    render.data([key.model_dump(mode="json") for key in trusted.values()])


def rotate_key(json: Json = False, workspace: At = None) -> None:
    """Sign heads with a new key from here on, and delete the old one. Tell your auditors the new one."""
    from server.assembly.catalog import open_catalog
    from server.assembly.log_key import rotate
    from server.workspace import find

    found = find(root(workspace))
    key = rotate(found, open_catalog(found), actor="cli")
    if json:
        render.data(key.model_dump(mode="json"))
        return
    render.note(f"Heads are signed by {key.id} from here on; the old key is gone")
    render.note("hint: a control plane that is running must start again, until then it refuses every change")
