"""The table and the picture of a result: pure, so that a test holds them to what was measured."""

import io
import re
from typing import Any

LIMITS = {
    "snapshot.all s": 2.0,
    "snapshot.MB": 200.0,
    "snapshot.memory MB": 200.0,
    "router.look us.resolve": 5.0,
    "follow.revoked ms most": 2000.0,
    "pages ms": 50.0,
    "pushes.ratio": 1.5,
}
"""What was promised, by the start of a figure's name."""


def flat(figures: dict[str, Any], at: str = "") -> dict[str, float]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    found: dict[str, float] = {}
    for name, value in figures.items():
        path = f"{at}.{name}" if at else name
        found |= flat(value, path) if isinstance(value, dict) else {path: value}
    return found


def limit_of(figure: str) -> float | None:
    if figure.endswith(".pages"):  # how many there are
        return None
    return next((limit for start, limit in LIMITS.items() if figure.startswith(start)), None)


def rows(result: dict[str, Any]) -> list[list[str]]:
    """One a figure, with a column for each store; what was promised stands beside it."""
    columns = [flat(figures) for figures in result["stores"].values()]
    listed = [
        [_named(figure), *(_written(column.get(figure)) for column in columns)] for figure in columns[0]
    ]
    for figure, value in flat({"pushes": result.get("pushes", {})}).items():
        listed.append([_named(figure), *[""] * (len(columns) - 1), _written(value)])
    return listed


def _named(figure: str) -> str:
    limit = limit_of(figure)
    return figure.replace(".", ": ", 1) + ("" if limit is None else f" (at most {limit:g})")


def _written(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,.3g}"


def plot(result: dict[str, Any]) -> str:
    """SVG: every figure that has a limit, as a share of it, on a logarithmic axis; right of 1 is broken."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = {name: flat(figures) for name, figures in result["stores"].items()}
    if "pushes" in result:  # measured on one store only
        last = list(columns)[-1]
        columns[last] |= flat({"pushes": result["pushes"]})
    every = dict.fromkeys(figure for column in columns.values() for figure in column)
    figures = [figure for figure in every if limit_of(figure) is not None]
    # The same result gives the same file: no date, and no random ids.
    with rc_context({"svg.hashsalt": "tenon", "font.size": 8}):
        picture = Figure(figsize=(8, 0.4 + 0.22 * len(figures)), layout="constrained")
        axes = picture.subplots()
        for offset, (name, column) in enumerate(columns.items()):
            shares = [column.get(figure, 0.0) / (limit_of(figure) or 1) for figure in figures]
            heights = [place + 0.35 * offset for place in range(len(figures))]
            axes.barh(heights, shares, height=0.33, label=name)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xscale("log")
        axes.set_yticks([place + 0.17 for place in range(len(figures))], [_named(name) for name in figures])
        axes.invert_yaxis()
        axes.set_xlabel(f"share of the limit: {result['tenants']:,} tenants, {result['versions']:,} versions")
        axes.legend()
        text = io.StringIO()
        picture.savefig(text, format="svg", metadata={"Date": None})
    return re.sub(r"[ \t]+$", "", text.getvalue(), flags=re.MULTILINE)
