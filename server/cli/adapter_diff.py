"""``tenon adapter diff``"""

from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place


def diff(
    first: Annotated[str, typer.Argument(help="tenant/adapter:alias or tenant/adapter@sha256:…")],
    second: Annotated[str, typer.Argument(help="What it is compared with")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show how two versions differ: files, LoRA shape, lineage, and what was measured of each."""
    from registry.names import Ref
    from server.assembly.described import compare, describe

    catalog = place(workspace).catalog
    one, other = describe(catalog, Ref.parse(first)), describe(catalog, Ref.parse(second))
    lines = compare(one, other)
    if json:
        render.data(
            {
                "first": one.version,
                "second": other.version,
                "differences": {line.what: [line.first, line.second] for line in lines if line.differs},
                "metrics": {line.what: [line.first, line.second] for line in lines if line.metric},
            }
        )
        return
    rows = [
        [line.what, line.first or "-", line.second or "-"] for line in lines if line.differs or line.metric
    ]
    if one.version == other.version:
        render.note(f"Both are {one.version}")
    else:
        render.table("", ["what", one.version.short, other.version.short], rows)
