"""Options that many commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from server.assembly.place import Place

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines")]
Epoch = Annotated[
    int | None,
    typer.Option("--expect-epoch", min=0, help="Only if the alias is still there (tenon alias show); 0: new"),
]
At = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="DIR|URL",
        help="Workspace folder or control plane [default: $TENON_WORKSPACE, else .tenon]",
    ),
]


def where(workspace: str | None) -> str:
    from server.settings import ClientSettings, load

    return workspace or load(ClientSettings).workspace


def root(workspace: str | None) -> Path:
    """The folder, for commands that need the machine it is on. Raises FolderNeeded."""
    from server.assembly.place import is_url
    from server.errors import FolderNeeded

    given = where(workspace)
    if is_url(given):
        raise FolderNeeded(f"{given} is a URL")
    return Path(given)


def place(workspace: str | None) -> "Place":
    """The folder or the URL."""
    from server.assembly.place import open_place

    return open_place(where(workspace))
