"""The tables and the picture of a result: pure, so that a test holds them to what was measured."""

import io
import re
from typing import Any

GOALS = {
    "added_ms_p50_1": ("at most", 0.25),
    "rps_32": ("at least", 10_000),
    "streams_32": ("at least", 2_000),
    "p99_added_ms_500": ("at most", 2.0),
    "rss_mb": ("at most", 250),
    "ratio_litellm": ("at least", 80),
    "ratio_litellm_streams": ("at least", 60),
    "ratio_vllm_router": ("at least", 0.5),
    "ratio_vllm_router_streams": ("at least", 0.7),
}
_SHOWN = {"rps_1": "1 client, req/s", "rps_32": "32 clients, req/s", "streams_32": "32 clients, streams/s"}


def figures(result: dict[str, Any]) -> list[list[str]]:
    """What was promised first, with the promise beside it; then every side's own figures."""
    listed = [
        [f"{name} ({word} {goal:,g})", _written(result[name])]
        for name, (word, goal) in GOALS.items()
        if name in result
    ]
    listed += [
        [f"{name} (ratio)", _written(value)]
        for name, value in result.items()
        if name.startswith("ratio_") and name not in GOALS
    ]
    for side, found in result["sides"].items():
        listed += [[f"{side}: {name}", _written(value)] for name, value in found.items()]
    return listed + [[f"memory: {name}, MB", _written(value)] for name, value in result["memory"].items()]


def budget(result: dict[str, Any]) -> list[list[str]]:
    """The steps of a whole answer, what they come to, and what is left of the CPU time under load."""
    steps = {name: value for name, value in result["budget"].items() if not name.startswith("a stream")}
    streamed = [[name, f"{value:.1f}"] for name, value in result["budget"].items() if name not in steps]
    total, cpu = sum(steps.values()), result["cpu_us"]
    return [
        *([name, f"{value:.1f}"] for name, value in steps.items()),
        ["all steps", f"{total:.1f}"],
        ["sockets, HTTP, tasks, group commit", f"{cpu - total:.1f}"],
        ["CPU of the router per request, 32 clients", f"{cpu:.1f}"],
        *streamed,
    ]


def _written(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"


def plot(result: dict[str, Any]) -> str:
    """SVG: each side's requests and streams a second, on a logarithmic axis."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    sides = result["sides"]
    with rc_context({"svg.hashsalt": "router", "font.size": 9}):
        figure = Figure(figsize=(8, 1.2 + 0.35 * len(_SHOWN) * len(sides)), layout="constrained")
        axes = figure.add_subplot()
        at, ticks, names = 0.0, list[float](), list[str]()
        for name, title in _SHOWN.items():
            for number, (side, found) in enumerate(sides.items()):
                if name not in found:
                    continue
                axes.barh(at, found[name], color=f"C{number}")
                axes.text(found[name], at, f" {found[name]:,.0f}", va="center")
                ticks.append(at)
                names.append(f"{side}: {title}")
                at -= 1
            at -= 0.5
        axes.set_yticks(ticks, names)
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title("The router over an engine that costs nothing; all of it on one machine", loc="left")
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return re.sub(r"[ \t]+\n", "\n", written.getvalue())
