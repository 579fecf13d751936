"""``tenon adapter export`` and ``tenon adapter import``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place


def install(group: typer.Typer) -> None:
    """Into ``tenon adapter``."""
    group.command("export")(export)
    group.command("import")(import_)


def export(
    ref: Annotated[str, typer.Argument(help="tenant/adapter:alias or tenant/adapter@sha256:…")],
    folder: Annotated[Path, typer.Argument(help="New folder to write")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Write a version as an OCI image layout, which ORAS can copy to any OCI registry."""
    from registry.names import Ref
    from server.assembly import oci

    version, done = oci.export(place(workspace).catalog, Ref.parse(ref), folder)
    if json:
        render.data({"version": version, "artifact": done.artifact, "tag": done.tag, "folder": str(folder)})
    else:
        render.text(done.artifact)
        render.note(f"Copy it with: oras cp -r --from-oci-layout {folder}:{done.tag} REGISTRY/NAME:TAG")


def import_(
    folder: Annotated[Path, typer.Argument(help="OCI image layout")],
    name: Annotated[str | None, typer.Option("--as", help="tenant/adapter [default: its own]")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Which of several adapters")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Check an OCI image layout and store its adapter as a version. Nothing goes live by it."""
    from registry.names import AdapterName
    from server.assembly import oci

    wanted = AdapterName.parse(name) if name else None
    done = oci.take(place(workspace).catalog, folder, wanted, tag=tag)
    if json:
        render.data({"version": done.version, "signatures": done.signatures})
    else:
        render.text(done.version)
        render.note(f"Stored, with {done.signatures} signatures by trusted keys")
