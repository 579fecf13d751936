"""Writing ``sweep.json`` and ``sweep.html``: what varying some keys did to the held-out answers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from registry import canonical
from trainer.folder import METRICS
from trainer.reporting.curves import bars, draw, read_curves
from trainer.sweep import HALF, Swept, shared_metrics

_OVERLAID: Final = ("loss", "reward", "kl", "entropy", "length")
"""Curves of these names are drawn over each other; the rest is in each run's own report."""


def sweep_name(swept: Sequence[Swept]) -> str:
    """The same variants, the same name."""
    return "sweep-" + canonical.digest_of([one.run.plan.identity() for one in swept]).hex[:16]


def write_sweep(swept: Sequence[Swept], folder: Path, *, chosen: Swept | None = None) -> Path:
    """Both files, in ``folder``; the page's path."""
    from jinja2 import Environment, PackageLoader

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_as_json(swept, chosen), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "sweep.json").write_text(text + "\n", encoding="utf-8")
    environment = Environment(loader=PackageLoader("trainer.reporting", ""), autoescape=True)
    page = folder / "sweep.html"
    page.write_text(
        environment.get_template("sweep.html.j2").render(
            name=str(swept[0].run.name),
            method=swept[0].run.plan.method,
            names=shared_metrics(swept),
            header=["variant", "trained weights", "seconds", *shared_metrics(swept)],
            rows=rows(swept),
            chosen=None if chosen is None else str(chosen.variant),
            chart=_chart(swept),
            curves=_curves(swept),
            runs=[(str(one.variant), one.run.folder.name, one.run.plan.identity()) for one in swept],
        ),
        encoding="utf-8",
    )
    return page


def rows(swept: Sequence[Swept]) -> list[list[str]]:
    """The base's row first, where all were measured on the same one."""
    names = shared_metrics(swept)
    table = [
        [str(one.variant), f"{one.parameters:,}", f"{one.run.seconds.get('learn', 0.0):.1f}"]
        + [_figure(one, name) for name in names]
        for one in swept
    ]
    first = swept[0].run
    if all(one.run.baseline == first.baseline for one in swept):
        known = [first.baseline.get(name) for name in names]
        table.insert(0, ["base", "", "", *("" if m is None else _shown(m.value, m.stderr) for m in known)])
    return table


def _figure(one: Swept, name: str) -> str:
    metric = one.run.metrics[name]
    return _shown(metric.value, metric.stderr)


def _shown(value: float, stderr: float) -> str:
    return f"{value:.3f} ± {HALF * stderr:.3f}"


def _as_json(swept: Sequence[Swept], chosen: Swept | None) -> dict[str, Any]:
    return {
        "kind": "tenon.sweep/v1",
        "adapter": str(swept[0].run.name),
        "method": swept[0].run.plan.method,
        "chosen": None if chosen is None else list(chosen.variant.overrides),
        "variants": [
            {
                "overrides": list(one.variant.overrides),
                "plan": one.run.plan.identity(),
                "run": one.run.folder.name,
                "trained_parameters": one.parameters,
                "seconds": one.run.seconds,
                "metrics": {name: m.model_dump(mode="json") for name, m in one.run.metrics.items()},
                "baseline": {name: m.model_dump(mode="json") for name, m in one.run.baseline.items()},
            }
            for one in swept
        ],
    }


def _chart(swept: Sequence[Swept]) -> str:
    names = [
        name for name in shared_metrics(swept) if all(0 <= one.run.metrics[name].value <= 1 for one in swept)
    ]
    sides = {
        str(one.variant): [
            (one.run.metrics[name].value, HALF * one.run.metrics[name].stderr) for name in names
        ]
        for one in swept
    }
    return bars(names, sides, title="held-out results") if names else ""


def _curves(swept: Sequence[Swept]) -> list[str]:
    drawn = [(one, {curve.name: curve for curve in read_curves(one.run.folder / METRICS)}) for one in swept]
    return [
        draw(
            [replace(curves[name], name=str(one.variant)) for one, curves in drawn if name in curves],
            title=name,
        )
        for name in _OVERLAID
        if any(name in curves for _, curves in drawn)
    ]
