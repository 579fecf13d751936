"""What a run's steps look like: one picture for each thing that was measured."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HIDDEN: Final = frozenset({"step", "learning_rate", "gradient_norm"})
_FIRST: Final = ("loss", "reward", "kl", "entropy", "length")
"""Curves whose name begins so come first; people look there first."""


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


def read_curves(metrics: Path) -> tuple[Curve, ...]:
    """Every figure of ``metrics.jsonl`` over its steps, constant ones left out."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        figures: Mapping[str, float] = json.loads(line)
        for name, value in figures.items():
            if name != "step":
                points.setdefault(name, []).append((int(figures["step"]), float(value)))
    curves = [
        Curve(name, tuple(step for step, _ in series), tuple(value for _, value in series))
        for name, series in points.items()
        if len({value for _, value in series}) > 1
    ]
    return tuple(sorted(curves, key=_rank))


def _rank(curve: Curve) -> tuple[int, str]:
    place = next((n for n, name in enumerate(_FIRST) if name in curve.name), len(_FIRST))
    return (len(_FIRST) + 1 if curve.name in _HIDDEN else place), curve.name


def draw(curves: Sequence[Curve], *, title: str = "") -> str:
    """The curves over each other in one picture, as inline SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 2.5), layout="constrained")
    axes = figure.add_subplot()
    for curve in curves:
        axes.plot(curve.steps, curve.values, linewidth=1.4, label=curve.name)
    axes.set_title(title or curves[0].name, fontsize=9, loc="left")
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(visible=True, alpha=0.25)
    if len(curves) > 1:
        axes.legend(fontsize=7, frameon=False)
    return _svg(FigureCanvasSVG(figure))


def bars(names: Sequence[str], sides: Mapping[str, Sequence[tuple[float, float]]], *, title: str) -> str:
    """Groups of bars: ``sides`` maps a legend to one (value, half of its 95 % interval) for each name."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.6, 1.1 * len(names)), 2.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(sides)
    for place, (label, values) in enumerate(sides.items()):
        axes.bar(
            [number + place * width for number in range(len(names))],
            [value for value, _ in values],
            width,
            yerr=[half for _, half in values],
            error_kw={"linewidth": 0.8, "capsize": 2},
            label=label,
        )
    axes.set_xticks([number + 0.4 - width / 2 for number in range(len(names))], names, fontsize=7)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(fontsize=7, frameon=False)
    return _svg(FigureCanvasSVG(figure))


def _svg(canvas: object) -> str:
    buffer = io.StringIO()
    # No date and fixed ids: the same run draws the same picture.
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "tenon", "svg.fonttype": "none"}):
        canvas.print_svg(buffer, metadata={"Date": None})  # type: ignore[attr-defined]  # untyped library
    text = buffer.getvalue()
    return text[text.index("<svg") :]
