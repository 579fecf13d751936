"""``tenon demo``"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="The main job on a laptop: three tenants, one base.", no_args_is_help=True)
    group.command("run")(run)
    group.command("data")(data)
    group.command("build-base")(build_base)
    app.add_typer(group, name="demo")


def run(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again instead of reusing adapters")] = False,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Train three tenants' adapters, serve them attested, and show who answered."""
    from server.demo.run import run_demo

    run_demo(root(workspace), keep=keep, fresh=fresh, json=json)


def data(
    folder: Annotated[Path, typer.Argument(help="Where to write")],
    tenant: Annotated[Literal["bank_a", "retail_b", "saas_c"], typer.Option(help="Whose rules")] = "bank_a",
    json: Json = False,
) -> None:
    """Write a demo tenant's training rows, held-out cases, answer schema and recipe, to try things with."""
    from server.demo.data import write_data

    recipe = write_data(folder, tenant)
    if json:
        render.data({"recipe": str(recipe)})
    else:
        render.note(f"Recipe at {recipe}")


def build_base(
    out: Annotated[Path, typer.Argument(help="New folder for the base")],
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same corpus")] = 7,
    size: Annotated[
        Literal["base", "student"], typer.Option(help="student: half the parameters, to distil into")
    ] = "base",
    json: Json = False,
) -> None:
    """Train a base model of the demo from scratch (about 8 minutes on 2 cores) and report its quality."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.progress import Progress

    from server.demo.build_base import build_base as build

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("demo base", total=None)

        def advance(done: int, total: int, figures: dict[str, float]) -> None:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
            progress.update(task, completed=done, total=total, description=f"demo base  {shown}")

        quality = build(out, seed=seed, size=size, progress=advance)
    if json:
        render.data(asdict(quality))
        return
    rows = [
        [
            name,
            f"{m.valid_json:.1%}",
            f"{m.amount_copied:.1%}",
            f"{m.facts_copied:.1%}",
            f"{m.intent_right:.1%}",
            str(m.n),
        ]
        for name, m in (
            ("greedy", quality.greedy.all),
            ("greedy, unseen phrasings", quality.greedy.unseen_phrasings),
            ("T=1", quality.sampled.all),
        )
    ]
    render.table(f"Demo base at {out}", ["decoding", "valid JSON", "amounts", "facts", "intent", "n"], rows)
