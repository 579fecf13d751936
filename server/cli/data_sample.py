"""``tenon data sample``"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(group: typer.Typer) -> None:
    group.command("sample")(sample)


def sample(
    cases: Annotated[Path, typer.Argument(help="Questions: a file of cases")],
    out: Annotated[Path, typer.Option("--out", "-O", help="File to write (JSON Lines)")],
    verifier: Annotated[list[str], typer.Option(help="Who checks the answers; repeat for several")],
    version: Annotated[str | None, typer.Option(help="Answers of tenant/adapter:alias or @digest")] = None,
    base: Annotated[str | None, typer.Option(help="Answers of a registered base")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Answers of an OpenAI-compatible URL (…/v1)")] = None,
    model: Annotated[str | None, typer.Option(help="With --endpoint: which model")] = None,
    schema: Annotated[Path | None, typer.Option(help="JSON Schema for the verifier schema_valid")] = None,
    samples: Annotated[int, typer.Option(min=1, max=1024, help="Answers to each question")] = 8,
    temperature: Annotated[float, typer.Option(min=0.01, max=10)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1)] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer")] = 128,
    max_length: Annotated[int, typer.Option(min=8, help="Longest question and answer together")] = 2048,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Draw several answers to every question and verify them: the stuff of best-of-N and pass-rate filters.

    Stopped halfway, the same command goes on: answers so far lie beside the file.
    """
    from rich.console import Console
    from rich.progress import Progress

    from server.assembly.catalog import open_catalog
    from server.assembly.sampling import Request, sample
    from server.workspace import find
    from trainer.recipes.sources import Teacher
    from trainer.recipes.training import Sampling
    from trainer.tried_file import to_lines

    if sum(way is not None for way in (version, base, endpoint)) != 1 or (endpoint is None) != (
        model is None
    ):
        raise typer.BadParameter("give --version, --base, or --endpoint with --model")
    place = find(root(workspace))
    request = Request(
        cases=cases,
        source=Teacher.build(
            {
                "version": version,
                "base": base,
                "endpoint": None if endpoint is None else {"url": endpoint, "model": model},
            }
        ),
        verifiers=tuple(verifier),
        schema=schema,
        sampling=Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens),
        samples=samples,
        seed=seed,
        max_length=max_length,
    )
    kept = out.with_name(f".{out.name}.answers")
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("answers", total=None)
        tried, tally = sample(
            place,
            open_catalog(place),
            request,
            kept=kept,
            advanced=lambda done, total: progress.update(task, completed=done, total=total),
        )
    out.write_text(to_lines(tried), encoding="utf-8")
    kept.unlink()
    if json:
        render.data(tally.as_json())
        return
    render.note(f"{tally.questions} questions, {tally.answered} answers, {tally.accepted} accepted")
    rates = [one.pass_rate for one in tried]
    rows = [
        ["never right", str(rates.count(0.0))],
        ["sometimes", str(sum(0 < rate < 1 for rate in rates))],
        ["always", str(rates.count(1.0))],
    ]
    render.table("", ["answered", "questions"], rows, stderr=True)
    render.note(f"Next: tenon data filter {out} --out train.jsonl")
