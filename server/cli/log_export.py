"""``tenon log export``"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place


def export(
    tenant: Annotated[str, typer.Argument(help="Whose entries")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write [default: stdout]")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Write a tenant's entries with their proofs: to be verified without this registry.

    They are lines of JSON in any case; --json says in JSON what was written to --out.
    """
    lines = place(workspace).catalog.export_log(tenant)
    if out is None:
        for line in lines:
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return
    from server.assembly.log_checks import check_export

    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("wb") as stream:
            for line in lines:
                stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        result = check_export(part, trust=None)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    if json:
        render.data({"file": str(out), "tenant": tenant, "entries": result.entries})
        return
    render.note(f"{result.entries} entries of {tenant} in {out}; check it: tenon log verify --file {out}")
