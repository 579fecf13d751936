"""``tenon history``"""

from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place


def install(app: typer.Typer) -> None:
    app.command("history")(history)


def history(
    name: Annotated[str, typer.Argument(help="tenant/adapter")],
    alias: Annotated[str, typer.Option("--alias", help="Which alias")] = "live",
    json: Json = False,
    workspace: At = None,
) -> None:
    """Every move of an alias, oldest first: when, by whom, to what, and why."""
    from pydantic import TypeAdapter

    from registry.catalog.aliases import AliasMove
    from registry.names import AdapterName

    moves = place(workspace).catalog.history(AdapterName.parse(name), alias)
    if json:
        render.data(TypeAdapter(tuple[AliasMove, ...]).dump_python(moves, mode="json"))
    else:
        render.table(
            "",
            ["epoch", "at", "who", "what", "version", "from"],
            [
                [
                    str(move.epoch), move.at, move.actor, move.cause, move.version.short,
                    move.previous.short if move.previous else "-",
                ]
                for move in moves
            ],
        )  # fmt: skip
