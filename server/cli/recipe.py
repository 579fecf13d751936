"""``tenon recipe``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import Json


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="The recipes that ship with Tenon, one for each method.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("copy")(copy)
    app.add_typer(group, name="recipe")


def list_(json: Json = False) -> None:
    """Every built-in recipe and what it shows."""
    from trainer.recipes import builtin

    recipes = [builtin.describe(name) for name in builtin.names()]
    if json:
        render.data([{"name": one.name, "method": one.method, "shows": one.shows} for one in recipes])
        return
    render.table("", ["recipe", "method", "shows"], [[one.name, one.method, one.shows] for one in recipes])
    render.note("Copy one with its data: tenon recipe copy NAME FOLDER")


def copy(
    name: Annotated[str, typer.Argument(help="Its name in tenon recipe list")],
    folder: Annotated[Path, typer.Argument(help="Where to write")],
    json: Json = False,
) -> None:
    """Write a built-in recipe, the recipes it builds on and their data, to run and to change."""
    from trainer.recipes import builtin

    written = builtin.copy(name, folder)
    if json:
        render.data({"recipe": str(folder / f"{name}.yaml"), "written": [str(path) for path in written]})
        return
    for path in written:
        render.note(f"Written: {path}")
    render.note(f"Run it with: tenon train {folder / name}.yaml")
