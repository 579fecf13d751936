"""``tenon train``"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    recipe: Annotated[Path, typer.Argument(help="recipe.yaml")],
    override: Annotated[list[str] | None, typer.Option("-o", help="key=value over the recipe")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run, and stop")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even if this was done before")] = False,
    push: Annotated[bool, typer.Option(help="Push the version and its report to the registry")] = True,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Train, package and evaluate an adapter, and push it. Nothing goes live by training."""
    from server.assembly import training
    from server.assembly.catalog import open_catalog
    from server.cli.progress import bars
    from server.workspace import find
    from trainer.run import TrainedRun

    place = find(root(workspace))
    catalog = open_catalog(place)

    def execute(ready: training.Ready) -> TrainedRun:
        with bars(str(ready.planned.name)) as sink:
            return training.run(place, ready, sink, fresh=fresh)

    before = partial(training.known, place) if plan else execute
    ready = training.prepare(place, catalog, recipe, override or (), before=before)
    if plan:
        render.data(ready.planned.plan.model_dump(mode="json"))
        return
    name = ready.planned.name
    run = execute(ready)
    version = training.push(place, catalog, run, actor="cli").version if push else None
    rows = training.figures(run.metrics, run.baseline)
    render.table(f"{name} on held-out cases", ["metric", "base", "adapter", "n"], rows, stderr=True)
    if json:
        render.data({"run": str(run.folder), "version": version})
    elif version:
        render.text(version)
        render.note(f"Pushed; put it live with: tenon promote {name}@{version}")
