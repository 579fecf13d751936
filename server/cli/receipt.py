"""``tenon receipt``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Proof of which adapter gave an answer.", no_args_is_help=True)
    group.command("verify")(verify)
    group.command("prove")(prove)
    app.add_typer(group, name="receipt")


def verify(
    file: Annotated[Path, typer.Argument(help="Receipt, as GET /v1/receipts/ID gave it")],
    trust: Annotated[Path | None, typer.Option("--trust", help="Public keys from: tenon log keys")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Verify a receipt offline: signature, digest, and (with a workspace) its place in the record chain."""
    from server.assembly.receipts import verify_receipt_file
    from server.workspace import find

    found = verify_receipt_file(file, trust=trust, workspace=None if trust else find(root(workspace)))
    fields = found.record.model_dump(mode="json")
    log = found.sealed.model_dump(mode="json") if found.sealed else None
    if json:
        render.data({"ok": True, "record": fields, "log": log})
        return
    shown = (
        *("id", "at", "tenant", "model", "adapter", "version", "policy", "engine", "attestation"),
        *("status", "code", "answer_of", "answer"),
    )
    render.table(
        "Receipt verified",
        ["what", "value"],
        [[k, str(fields[k])] for k in shown if fields[k] is not None],
    )
    if found.sealed is not None:
        head = found.sealed
        render.note(f"proven: the registry's log of {head.size} entries, signed {head.at}, commits to it")
    else:
        render.note(
            "not proven: that the registry's log commits to it; its operator adds that: tenon receipt prove"
        )


def prove(
    file: Annotated[Path, typer.Argument(help="Receipt, as GET /v1/receipts/ID gave it")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write [default: stdout]")] = None,
    records: Annotated[
        Path | None, typer.Option("--records", help="Routers' record folders [default: the workspace's]")
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Add the proof that the registry's log commits to a receipt's record; no other record is shown."""
    from server.assembly.receipts import prove_receipt

    at = place(workspace)
    receipt = prove_receipt(file, catalog=at.catalog, records=records or at.folder().records)
    if out is None:
        render.data(receipt.model_dump(mode="json"))
        return
    out.write_bytes(receipt.canonical() + b"\n")
    if json:
        render.data({"file": str(out)})
    else:
        render.note(f"proof added in {out}; check it: tenon receipt verify {out}")
