"""``tenon promote``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Epoch, Json, place
from server.cli.waiting import NoWait, Wait, moved, patience

_FALLBACK = ("policy>=0.9", "valid_json>=0.9")
"""For a version that no recipe of this workspace made."""


def install(app: typer.Typer) -> None:
    app.command("promote")(promote)


def promote(
    ref: Annotated[str, typer.Argument(help="tenant/adapter@sha256:…")],
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", help="Instead of the recipe's gate: METRIC>=VALUE, or METRIC>base+VALUE"),
    ] = None,
    alias: Annotated[str, typer.Option("--alias", help="Which alias moves")] = "live",
    percent: Annotated[
        float,
        typer.Option("--percent", min=0.01, max=100, help="Below 100: a canary beside the stable one"),
    ] = 100,
    expect_epoch: Epoch = None,
    expires_at: Annotated[
        str | None, typer.Option("--expires-at", help="When the alias ends: 2026-12-31T00:00:00Z")
    ] = None,
    release_key: Annotated[
        Path | None, typer.Option("--release-key", help="Sign the move, where the alias asks for it")
    ] = None,
    wait: Wait = 120,
    no_wait: NoWait = False,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Move an alias to a version, if the gate passes on signed evidence (exit code 3: refused).

    Engines load and attest the version first, and the alias answers with what it shows until they are ready:
    then it moves for everybody at once. Where the alias needs other people's approval, this makes a proposal
    and nothing moves yet.
    """
    from registry.clock import restamp
    from registry.errors import InvalidRef
    from registry.names import Ref
    from server.assembly.promoting import Move, promote_or_propose
    from server.assembly.training import gate_of
    from server.cli.rules import parse_gate

    target = Ref.parse(ref)
    if target.version is None:
        raise InvalidRef("promote needs an exact version", hint="write tenant/adapter@sha256:…")
    opened = place(workspace)
    catalog = opened.catalog
    catalog.resolve(target)
    own = gate_of(opened.workspace, catalog.manifest(target.version)) if opened.workspace else None
    if rule and own is not None:
        render.note("The rules given replace the gate of the version's recipe")
    if not rule and own is None:
        render.note(f"The gate of the version's recipe is not kept here: {', '.join(_FALLBACK)} is asked for")
    move = Move(
        name=target.name,
        version=target.version,
        gate=parse_gate(rule) if rule else own or parse_gate(_FALLBACK),
        alias=alias,
        percent=percent,
        expect_epoch=expect_epoch,
        # In the registry's spelling, because a release key signs exactly what the registry then compares.
        expires_at=None if expires_at is None else restamp(expires_at, "expires_at"),
    )
    with patience(wait, no_wait=no_wait, quiet=json) as patient:
        done = promote_or_propose(catalog, move, release_key=release_key, patience=patient, actor="cli")
    if done.proposal is not None:
        waiting = done.proposal
        if json:
            render.data({"proposal": waiting.model_dump(mode="json")})
            return
        render.text(waiting.id)
        render.note(
            f"{target.name}:{alias} needs approval, so nothing has moved; somebody else gives it with:"
        )
        render.note(f"  tenon proposal approve {waiting.tenant} {waiting.id}")
        return
    if json:
        render.data(done.verdict.model_dump(mode="json") if done.verdict else None)
        moved(catalog.readiness(target.name, target.version, alias=alias), percent=percent)
        return
    for reason in done.verdict.reasons if done.verdict else ():
        render.note(f"  - {reason}")
    share = f" for {percent:g} % of its users" if percent < 100 else ""
    render.note(f"{target.name}:{alias} is now {target.version.short}{share}")
    moved(catalog.readiness(target.name, target.version, alias=alias), percent=percent)
    if percent < 100:
        render.note(f"next: promote it with --percent 100, or end the canary: tenon rollback {target.name}")
