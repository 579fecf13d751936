"""``tenon adapter push``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place


def push(
    source: Annotated[
        str, typer.Argument(help="PEFT folder, .zip or .tar.gz of one, or org/name[@revision]")
    ],
    name: Annotated[str, typer.Option("--as", help="tenant/adapter")],
    base: Annotated[str, typer.Option("--base", help="Registered base it was trained on")],
    probes: Annotated[Path | None, typer.Option("--probes", help="Evaluation cases to probe it with")] = None,
    base_folder: Annotated[
        Path | None, typer.Option("--base-folder", help="Files of the base here, to fingerprint with")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="Trainer's signing key [default: the workspace's]")
    ] = None,
    unwalled: Annotated[
        bool, typer.Option("--unwalled", help="Fingerprint it also where the kernel cannot confine that")
    ] = False,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Check an adapter and store it as a new version. Nothing goes live by a push.

    Only bytes that the registry lacks travel, and an interrupted push goes on where it stopped.
    """
    from registry.names import AdapterName
    from server.assembly import pushing
    from server.cli.transfer import bar

    opened, adapter = place(workspace), AdapterName.parse(name)
    with bar("push") as progress:
        done = pushing.push(
            opened,
            source,
            adapter,
            base=base,
            base_folder=base_folder,
            probes=probes,
            key_file=key_file,
            progress=progress,
            note=render.note,
            walled=not unwalled,
        )
    distance = done.fingerprint.distance_to_base if done.fingerprint else None
    weak = list(done.fingerprint.weak) if done.fingerprint else None
    if json:
        render.data(
            {"version": done.version, "distance_to_base": distance, "weak": weak, "signed_by": done.signed_by}
        )
        return
    render.text(done.version)
    if done.fingerprint is None:
        render.note("Stored; it cannot be served without a fingerprint: tenon adapter reference makes one")
    else:
        from server.cli.strength import sentence

        render.note(sentence(done.fingerprint))
        render.note(f"Stored as {adapter}; a gate asks for evidence before it lets it go live. Next:")
        render.note(f"  tenon evaluate {adapter}@{done.version} --suite CASES.jsonl")
        render.note(f"  tenon promote {adapter}@{done.version}")
