"""``tenon policy check``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import Json


def check(
    file: Annotated[Path, typer.Argument(help="JSON schema of answers")],
    json: Json = False,
) -> None:
    """Is every keyword of a schema one that engines enforce? Exit code 1 if not. Nothing is published."""
    from registry.errors import InvalidDocument
    from registry.policies import MAX_BYTES, lint_text

    with file.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    try:
        faults = lint_text(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"{file}: not UTF-8: {error}") from None
    if json:
        told = [{"pointer": fault.pointer, "keyword": fault.keyword, "why": fault.why} for fault in faults]
        render.data({"enforced": not faults, "faults": told})
    else:
        for fault in faults:
            render.text(str(fault))
        render.text(f"refused: {len(faults)} faults" if faults else "enforced: every keyword")
    if faults:
        raise typer.Exit(1)
