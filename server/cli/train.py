"""``tenon train``"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root
from trainer.trackers import Tracker


def install(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    what: Annotated[str, typer.Argument(help="recipe.yaml, or a method for a quick start: sft, dpo, grpo …")],
    override: Annotated[list[str] | None, typer.Option("-o", help="key=value over the recipe")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run, and stop")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even if this was done before")] = False,
    push: Annotated[bool, typer.Option(help="Push the version and its report to the registry")] = True,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Quick start: whose adapter")] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="Quick start: its name [default: assistant]")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Quick start: [default: the only registered one]")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Quick start: file, hf:// or s3:// rows")] = None,
    evaluation: Annotated[
        str | None, typer.Option("--evaluation", help="Quick start: cases [default: a tenth of the rows]")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", help="Quick start: yours=ours, as in question=prompt")
    ] = None,
    save: Annotated[Path | None, typer.Option("--save", help="Quick start: write the recipe here")] = None,
    snapshot_every: Annotated[
        float, typer.Option("--snapshot-every", min=0, help="Seconds of training that a crash may cost")
    ] = 60.0,
    track: Annotated[
        list[Tracker] | None,
        typer.Option("--track", help="Also tell an experiment tracker each step"),
    ] = None,
    devices: Annotated[
        int, typer.Option("--devices", help="Processes that learn together, one for each GPU")
    ] = 1,
    shard: Annotated[
        bool, typer.Option("--shard", help="Each of them holds only a part of the base (FSDP)")
    ] = False,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--sweep", help="Train every variant: lora.rank=4,8,16; several keys make a grid"),
    ] = None,
    push_best: Annotated[
        str | None, typer.Option("--push-best", help="Sweep: push the variant with the most of this metric")
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option("--registry", metavar="URL", help="Push there; bases and runs stay in the workspace"),
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Train, package and evaluate an adapter, and push it. Nothing goes live by training."""
    from server.assembly import training
    from server.cli.options import place as opened
    from server.cli.progress import bars
    from server.cli.sweep import sweep as sweep_over
    from server.workspace import find
    from trainer.methods import METHODS
    from trainer.recipes.quick import write_recipe
    from trainer.scale import Scale
    from trainer.trained import TrainedRun

    place = find(root(workspace))
    catalog = opened(registry or str(place.root)).catalog
    quick = what in METHODS and not Path(what).exists()
    quick_only = {
        "--tenant": tenant, "--adapter": adapter, "--base": base, "--data": data, "--evaluation": evaluation,
        "--column": column, "--save": save,
    }  # fmt: skip
    given = ", ".join(name for name, value in quick_only.items() if value)
    for wrong, why in (
        (bool(given) and not quick, f"a recipe says what {given} would: change it with -o, or name a method"),
        (quick and (tenant is None or data is None), "a quick start needs --tenant and --data"),
        (bool(sweep) and plan, "--plan shows one plan and --sweep makes several: vary the recipe with -o"),
        (push_best is not None and not sweep, "--push-best chooses among the variants of a --sweep"),
    ):
        if wrong:
            raise typer.BadParameter(why)

    def prepared(more: tuple[str, ...] = ()) -> training.Ready:
        overrides = (*(override or ()), *more)
        recipe: training.RecipeSource = Path(what)
        if tenant is not None and data is not None and quick:
            recipe = training.quick_start(
                place, what, tenant=tenant, adapter=adapter or "assistant", base=base, data=data,
                evaluation=evaluation, columns=column or (), overrides=overrides,
            )  # fmt: skip
            if save is not None and not more:
                write_recipe(recipe, save)
                render.note(f"Recipe written to {save}")
        before = partial(training.known, place) if plan else execute
        return training.prepare(place, catalog, recipe, overrides, before=before, scale=Scale(devices, shard))

    def execute(ready: training.Ready) -> TrainedRun:
        with bars(str(ready.planned.name)) as sink:
            return training.run(
                place, ready, sink, fresh=fresh, snapshot_every=snapshot_every, trackers=track or (),
                catalog=catalog,
            )  # fmt: skip

    if sweep:
        sweep_over(place, catalog, sweep, ready=prepared, execute=execute, push_best=push_best, json=json)
        return
    ready = prepared()
    if plan:
        if not json:
            titles = ["memory (estimated)", "on a CPU, float32", "on a GPU, bfloat16"]
            render.table("", titles, training.memory(ready), stderr=True)
        render.data(ready.planned.plan.model_dump(mode="json"))
        return
    if push and registry is not None:
        training.check_push(place, catalog, ready.planned.name)
    name, run = ready.planned.name, execute(ready)
    version = training.push(place, catalog, run, actor="cli").version if push else None
    rows = training.figures(run.metrics, run.baseline)
    render.table(f"{name} on held-out cases", ["metric", "base", "adapter", "n"], rows, stderr=True)
    for role in run.beside:
        columns = ["metric", "adapter", role, "difference", "n"]
        rows = training.beside(run, role)
        render.table(f"beside its {role} on the same cases", columns, rows, stderr=True)
    if json:
        render.data({"run": str(run.folder), "version": version})
    elif version:
        render.text(version)
        render.note(f"Pushed; put it live with: tenon promote {name}@{version}")
