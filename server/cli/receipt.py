"""``tenon receipt``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Proof of which adapter gave an answer.", no_args_is_help=True)
    group.command("verify")(verify)
    app.add_typer(group, name="receipt")


def verify(
    file: Annotated[Path, typer.Argument(help="Receipt, as GET /v1/receipts/ID gave it")],
    trust: Annotated[Path | None, typer.Option("--trust", help="Public keys from: tenon log keys")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Verify a receipt offline: signature, digest, and (with a workspace) its place in the record chain."""
    from server.assembly.audit import verify_receipt_file
    from server.workspace import find

    record = verify_receipt_file(file, trust=trust, workspace=None if trust else find(root(workspace)))
    fields = record.model_dump(mode="json")
    if json:
        render.data({"ok": True, "record": fields})
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
