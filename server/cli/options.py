"""Options that many commands share."""

from pathlib import Path
from typing import Annotated

import typer

from server.settings import default_workspace

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines")]
At = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", help="Workspace folder [default: $TENON_WORKSPACE, else .tenon]"),
]


def root(workspace: Path | None) -> Path:
    return workspace or default_workspace()
