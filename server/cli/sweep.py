"""``tenon train RECIPE --sweep key=value,value``: train every variant, compare, perhaps push one."""

from collections.abc import Callable, Sequence
from typing import Any

from server.assembly import training
from server.assembly.place import Catalog
from server.cli import render
from server.workspace import Workspace
from trainer.reporting.sweep import rows, sweep_name, write_sweep
from trainer.sweep import Swept, Variant, best, check_metric, shared_metrics, variants
from trainer.trained import TrainedRun


def sweep(
    place: Workspace,
    catalog: Catalog,
    lines: Sequence[str],
    *,
    ready: Callable[[tuple[str, ...]], training.Ready],
    execute: Callable[[training.Ready], TrainedRun],
    push_best: str | None,
    json: bool,
) -> None:
    """``ready`` plans the recipe with more overrides: all are planned before the first is trained."""
    if push_best is not None:
        check_metric(push_best)
    planned: list[tuple[Variant, training.Ready]] = [
        (variant, ready(variant.overrides)) for variant in variants(lines)
    ]
    swept = [Swept(variant, execute(one), training.trained_parameters(one)) for variant, one in planned]
    chosen, version = None, None
    if push_best is not None:
        chosen, close = best(swept, push_best)
        version = training.push(place, catalog, chosen.run, actor="cli").version
    page = write_sweep(swept, place.runs / sweep_name(swept), chosen=chosen)
    title = f"{swept[0].run.name}: ± is a 95 % interval"
    header = ["variant", "trained", "seconds", *shared_metrics(swept)]
    render.table(title, header, rows(swept), stderr=True)
    render.note(f"Report: {page}")
    if chosen is not None:
        render.note(f"Best by {push_best}: {chosen.variant}")
        if close:
            render.note(f"Not told apart from it: {'; '.join(str(one.variant) for one in close)}")
    if json:
        data: dict[str, Any] = {"report": str(page), "runs": [str(one.run.folder) for one in swept]}
        render.data({**data, "version": version})
    elif version is not None:
        render.text(version)
