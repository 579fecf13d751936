"""``tenon adapter reference``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place


def reference(
    ref: Annotated[str, typer.Argument(help="tenant/adapter@sha256:…, pushed without a fingerprint")],
    base_folder: Annotated[
        Path | None, typer.Option("--base-folder", help="Files of the base here [default: the workspace's]")
    ] = None,
    probes: Annotated[Path | None, typer.Option("--probes", help="Evaluation cases to probe it with")] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="Trainer's signing key [default: the workspace's]")
    ] = None,
    limit: Annotated[float, typer.Option("--limit", min=1, help="Seconds that it may take")] = 900,
    unwalled: Annotated[
        bool, typer.Option("--unwalled", help="Also where the kernel cannot confine it (no Landlock)")
    ] = False,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Measure how a version behaves, in a confined process, and file it signed: then it can be served."""
    from registry.names import Ref
    from server.assembly import referencing
    from server.cli.strength import sentence

    done = referencing.reference(
        place(workspace),
        Ref.parse(ref),
        base_folder=base_folder,
        probes=probes,
        key_file=key_file,
        seconds=limit,
        walled=not unwalled,
    )
    found = done.fingerprint
    if json:
        render.data(
            {
                "version": done.version,
                "fingerprint": found.identity(),
                "distance_to_base": found.distance_to_base,
                "noise": found.noise,
                "weak": list(found.weak),
                "signed_by": done.signed_by,
            }
        )
    else:
        render.text(done.version)
        render.note(sentence(found))
