"""``tenon rollback``"""

from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Epoch, Json, place
from server.cli.waiting import NoWait, Wait, moved, patience


def install(app: typer.Typer) -> None:
    app.command("rollback")(rollback)


def rollback(
    name: Annotated[str, typer.Argument(help="tenant/adapter")],
    alias: Annotated[str, typer.Option("--alias", help="Which alias moves back")] = "live",
    expect_epoch: Epoch = None,
    wait: Wait = 120,
    no_wait: NoWait = False,
    json: Json = False,
    workspace: At = None,
) -> None:
    """End an alias's canaries if it has any; else move it back to the version before.

    Engines mostly keep that one, and then it moves at once. Where they do not (the second roll back, engines
    that started afresh), they load and attest it first, and the alias answers with what it shows until they
    are ready. An alias that answers nobody, because what it shows was revoked or has expired, moves at once.
    """
    from registry.names import AdapterName
    from server.assembly.rolling_back import roll_back

    adapter, catalog = AdapterName.parse(name), place(workspace).catalog
    with patience(wait, no_wait=no_wait, quiet=json) as patient:
        state = roll_back(
            catalog, adapter, alias=alias, expect_epoch=expect_epoch, patience=patient, actor="cli"
        )
    if json:
        render.data(state.model_dump(mode="json"))
    else:
        render.note(f"{name}:{alias} is back at {state.version.short}")
    moved(catalog.readiness(adapter, state.version, alias=alias))
