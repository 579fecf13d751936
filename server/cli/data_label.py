"""``tenon data label``"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import Json


def install(group: typer.Typer) -> None:
    group.command("label")(label)


def label(
    answered: Annotated[Path, typer.Argument(help="What tenon data sample wrote, or rows with answers")],
    out: Annotated[Path, typer.Option("--out", "-O", help="File of pairs to write (JSON Lines)")],
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible URL of the judge (…/v1)")],
    model: Annotated[str, typer.Option(help="Which model judges")],
    rubric: Annotated[Path | None, typer.Option(help="Text file: what makes an answer better")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Questions at once")] = 4,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds for one verdict")] = 60.0,
    json: Json = False,
) -> None:
    """Let a judge model compare answers, in both orders, and write what it prefers as pairs.

    Stopped halfway, the same command goes on: verdicts so far lie beside the file.
    """
    from rich.console import Console
    from rich.progress import Progress

    from server.assembly.endpoint_key import endpoint_key
    from trainer import labelling
    from trainer.endpoint import EndpointClient
    from trainer.recipes.sources import Endpoint

    judge = Endpoint.build({"url": endpoint, "model": model, "timeout": timeout, "concurrency": concurrency})
    comparisons = labelling.read_comparisons(answered)
    kept = out.with_name(f".{out.name}.verdicts")
    client = EndpointClient(judge, endpoint_key(judge.url))
    try:
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("verdicts", total=None)
            rows, tally = labelling.label(
                comparisons,
                client,
                judged_by=model,
                kept=kept,
                rubric=labelling.RUBRIC if rubric is None else rubric.read_text(encoding="utf-8").strip(),
                advanced=lambda done, total: progress.update(task, completed=done, total=total),
            )
    finally:
        client.close()
    out.write_text(labelling.to_lines(rows), encoding="utf-8")
    kept.unlink()
    if json:
        render.data(tally.as_json())
        return
    counts = [[name, str(value)] for name, value in tally.as_json().items()]
    render.table("", ["of the comparisons", "count"], counts, stderr=True)
    render.note(f"{len(rows)} pairs in {out}; next: tenon train with method dpo, orpo, cpo, simpo or reward")
