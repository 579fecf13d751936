"""Writing ``report.html``: everything on one page that opens without a network."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from registry.evidence import Metric
from trainer.alarms import ALARMS, alarms_in
from trainer.folder import EVALUATION, METRICS, PROOF, SAMPLES
from trainer.methods import METHODS
from trainer.reporting.curves import bars, draw, read_curves
from trainer.trained import TrainedRun

REPORT: Final = "report.html"
_SAMPLES: Final = 12
_TAG_METRICS: Final = ("policy", "schema_valid", "verified", "pair_accuracy")
_HALF: Final = 1.96
"""Half a 95 % interval in standard errors."""
_LESS_IS_NEITHER: Final = frozenset({"words", "kl", "score_margin"})


def write_report(run: TrainedRun) -> Path:
    """The page of a finished run, in its folder."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("trainer.reporting", ""), autoescape=True)
    text = environment.get_template("page.html.j2").render(**_contents(run))
    path = run.folder / REPORT
    path.write_text(text, encoding="utf-8")
    return path


def _contents(run: TrainedRun) -> dict[str, Any]:
    plan = run.plan
    proof = _read(run.folder / PROOF)
    evaluation = _read(run.folder / EVALUATION)
    sides: dict[str, Mapping[str, Metric]] = {"base": run.baseline, "adapter": run.metrics}
    sides |= {role: other.metrics for role, other in run.beside.items()}
    shares = [name for name, metric in run.metrics.items() if 0 <= metric.value <= 1 and name in run.baseline]
    return {
        "name": str(run.name),
        "method": plan.method,
        "title": METHODS[plan.method].title,
        "scores": METHODS[plan.method].scores,
        "base": plan.base_name,
        "plan": plan.identity().short,
        "rows": next(ref.rows for ref in plan.data if ref.role == "train"),
        "cases": next(ref.rows for ref in plan.data if ref.role == "evaluation"),
        "alarms": alarms_in(proof),
        "sides": list(sides),
        "metrics": list(_rows(sides)),
        "chart": bars(
            shares,
            {
                side: [(found[name].value, _HALF * found[name].stderr) for name in shares]
                for side, found in sides.items()
                if all(name in found for name in shares)
            },
            title="held-out results",
        ),
        "tags": list(_tags(evaluation)),
        "tag_metrics": [name for name in _TAG_METRICS if name in run.metrics],
        "curves": [draw([curve]) for curve in read_curves(run.folder / METRICS)],
        "samples": list(_samples(run.folder / SAMPLES)),
        "proof": [(key, value) for key, value in proof.items() if key != ALARMS],
        "lineage": [
            ("base", plan.base),
            ("recipe", plan.recipe),
            *((ref.role, ref.digest) for ref in plan.data),
            *plan.inputs.items(),
            *plan.environment.items(),
        ],
        "seconds": list(run.seconds.items()),
    }


def _rows(sides: Mapping[str, Mapping[str, Metric]]) -> Iterator[dict[str, Any]]:
    for name, after in sorted(sides["adapter"].items()):
        before = sides["base"].get(name)
        change = None if before is None else after.value - before.value
        yield {
            "name": name,
            "cells": [_figure(found[name]) if name in found else "" for found in sides.values()],
            "change": "" if change is None else f"{change:+.3g}",
            "direction": ""
            if not change or name in _LESS_IS_NEITHER
            else "better"
            if change > 0
            else "worse",
            "n": after.n,
        }


def _figure(metric: Metric) -> str:
    return f"{metric.value:.3f} ± {_HALF * metric.stderr:.3f}"


def _tags(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for tag, sides in evaluation.get("by_tag", {}).items():
        names = [name for name in _TAG_METRICS if name in evaluation["metrics"]]
        cells = [
            f"{sides[side][name]['value']:.2f}" if name in sides[side] else ""
            for name in names
            for side in ("base", "adapter")
        ]
        yield tag, cells


def _samples(path: Path) -> Iterator[dict[str, str]]:
    """Those whose answer changed come first."""
    if not path.exists():
        return
    samples = json.loads(path.read_text(encoding="utf-8"))
    shown = [sample for sample in samples if "text" in sample.get("adapter", {})]
    shown.sort(key=lambda sample: sample["adapter"]["text"] == sample["base"]["text"])
    for sample in shown[:_SAMPLES]:
        yield {
            "question": "\n".join(f"{m['role']}: {m['content']}" for m in sample["messages"]),
            "base": sample["base"]["text"],
            "adapter": sample["adapter"]["text"],
        }


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return value
