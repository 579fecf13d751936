"""``tenon signer``"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli import render
from server.cli.options import At, Json, place, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Whose signatures the registry accepts, and for what.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("new")(new)
    group.command("trust")(trust)
    group.command("distrust")(distrust)
    app.add_typer(group, name="signer")


def list_(json: Json = False, workspace: At = None) -> None:
    """List trusted signers."""
    keys = sorted(place(workspace).catalog.trusted().values(), key=lambda key: (key.role, key.id))
    if json:
        render.data([key.model_dump(mode="json") for key in keys])
    else:
        render.table("", ["signer", "role", "ed25519"], [[key.id, key.role, key.ed25519] for key in keys])


def show(
    role: Annotated[Literal["trainer", "release"], typer.Argument(help="Which of the workspace's own keys")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Print the public part of a workspace's own signing key, for tenon signer trust elsewhere: as JSON in
    any case."""
    from server.assembly.catalog import signer
    from server.workspace import find

    render.data(signer(find(root(workspace)), role).public.model_dump(mode="json"))


def new(
    file: Annotated[Path, typer.Argument(help="Where to write the private key")],
    role: Annotated[Literal["trainer", "release"], typer.Option("--role", help="What it may sign")],
    json: Json = False,
) -> None:
    """Make a signing key. The private key is written to FILE, the public one to stdout."""
    from registry.signing.keys import Signer

    key = Signer.generate(role)
    key.save(file)
    render.data(key.public.model_dump(mode="json"))
    if not json:
        render.note(f"Private key in {file}; have the public one trusted with: tenon signer trust PUBLIC")


def trust(
    file: Annotated[Path, typer.Argument(help="Public key: JSON with id, role and ed25519")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Accept a signer from now on, in the one role that its key has."""
    from registry.models import PublicKey

    key = PublicKey.parse(file.read_bytes())
    place(workspace).catalog.trust(key, actor="cli")
    if json:
        render.data(key.model_dump(mode="json"))
    else:
        render.note(f"Signatures of {key.id} count as a {key.role}'s from now on")


def distrust(
    signer: Annotated[str, typer.Argument(help="Signer id, as tenon signer list shows it")],
    reason: Annotated[str, typer.Option("--reason", help="Stays in the log")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Accept nothing that a signer signs from now on; what is in the log stays valid."""
    place(workspace).catalog.distrust(signer, reason=reason, actor="cli")
    if json:
        render.data({"signer": signer, "trusted": False})
    else:
        render.note(f"Signatures of {signer} count no longer")
