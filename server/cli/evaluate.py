"""``tenon evaluate``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)


def evaluate(
    ref: Annotated[str, typer.Argument(help="tenant/adapter:alias or tenant/adapter@sha256:…")],
    suite: Annotated[Path, typer.Option("--suite", help="JSONL of cases")],
    schema: Annotated[Path | None, typer.Option("--schema", help="JSON schema of the answers")] = None,
    registry: Annotated[
        str | None,
        typer.Option("--registry", metavar="URL", help="The version is there; the base is in the workspace"),
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Measure a version beside its base on held-out cases, and file the signed report as evidence."""
    from registry.names import Ref
    from server.assembly import training
    from server.cli.options import place as opened
    from server.cli.progress import bars
    from server.workspace import find

    place = find(root(workspace))
    catalog = opened(registry or str(place.root)).catalog
    with bars(ref) as sink:
        report = training.measure(place, catalog, Ref.parse(ref), suite, schema, sink)
    if json:
        render.data(report.model_dump(mode="json"))
    else:
        rows = training.figures(report.metrics, report.baseline)
        render.table(f"{ref} on {suite.name}", ["metric", "base", "adapter", "n"], rows)
