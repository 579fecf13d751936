"""The tables and the picture of a result: pure."""

import io
import re
from typing import Any, Final

from bench.engines.adapters import COUNTS, KINDS

COLUMNS: Final = ["figure", "goal", "measured"]
RATES: Final = [
    "load", "adapters", "Tenon: tokens/s", "longest wait, ms", "plain vLLM: tokens/s", "longest wait, ms"
]  # fmt: skip
_SIDES: Final = ("tenon", "plain vLLM")


def figures(result: dict[str, Any]) -> list[list[str]]:
    """What was promised, with the promise beside it."""
    rows: list[list[str]] = []
    if part := result.get("promotions"):
        load, promotion = part["load"], part["promotion_ms"]
        rows += [
            ["promotion, ms: median / p95", "3,000", f"{promotion['median']:,.0f} / {promotion['p95']:,.0f}"],
            ["roll back until answered, ms: median / p95", "1,000", _two(part["rollback_ms"])],
            ["roll forward until answered, ms: median / p95", "", _two(part["forward_ms"])],
            ["cold adapter's first token, ms: median / p95", "1,000", _two(part["cold_first_token_ms"])],
            *(
                [f"attestation of {count}, ms in all", "200" if count == "1" else "", f"{taken:,.0f}"]
                for count, taken in part["attestation_ms"].items()
            ),
            ["requests during all promotions", "", f"{load['requests']:,} ({load['streams']:,} streams)"],
            ["of these failed", "0", str(load["failed"])],
            ["of these wrong", "0", str(load["wrong"])],
            ["two engines and the rest start, s", "", f"{part['two_engines_start_s']:.0f}"],
            *(
                [f"promotion, ms until: {step}", "", f"{taken:,.0f}"]
                for step, taken in part["steps_ms"].items()
            ),
            *(
                [f"cold adapter, ms until: {step}", "", f"{taken:,.0f}"]
                for step, taken in part["cold_steps_ms"].items()
            ),
        ]
    if part := result.get("adapters"):
        rows += [
            [f"cliff beyond the slots, {kind}: {side}", "1.3" if side == _SIDES[0] else "", f"{times:.2f}"]
            for kind, sides in part["cliffs"].items()
            for side, times in sides.items()
        ]
    if part := result.get("saturation"):
        for kind, name in (("stream", "streams"), ("whole", "whole answers")):
            found = part[kind]
            rates = found["tokens_per_second"]
            rows += [
                [f"router / direct, tokens/s, {name}", "0.98", f"{found['ratio']:.3f}"],
                [
                    f"router / direct, tokens for a second of the engine's processor, {name}",
                    "0.98",
                    f"{found['ratio_engine']:.3f}",
                ],
                [
                    f"router, direct: tokens/s, {name}",
                    "",
                    f"{rates['router']:,.0f}, {rates['direct']:,.0f}",
                ],
            ]
        rows += [
            ["router's processor, µs a streamed token", "", f"{part['stream']['router_us_per_token']:.0f}"],
            ["router's processor, µs a whole answer", "", f"{part['whole']['router_us_per_request']:.0f}"],
        ]
    return rows


def rates(result: dict[str, Any]) -> list[list[str]]:
    part = result["adapters"]
    return [
        [
            kind,
            str(count),
            *(
                written
                for side in _SIDES
                for written in (
                    f"{part[kind][side][str(count)]['tokens_per_second']:,.0f}",
                    f"{part[kind][side][str(count)]['first_ms_most']:,.0f}",
                )
            ),
        ]
        for kind in KINDS
        for count in COUNTS
    ]


def _two(spread: dict[str, float]) -> str:
    return f"{spread['median']:,.0f} / {spread['p95']:,.0f}"


def plot(result: dict[str, Any]) -> str:
    """SVG: tokens a second, and the longest wait below."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    part = result["adapters"]
    shown = {"tokens_per_second": "tokens a second", "first_ms_most": "longest wait for a first token, ms"}
    with rc_context({"svg.hashsalt": "engines", "font.size": 9}):
        figure = Figure(figsize=(11, 6), layout="constrained")
        for row, (name, title) in enumerate(shown.items()):
            for column, (kind, engines) in enumerate(KINDS.items()):
                axes = figure.add_subplot(2, len(KINDS), len(KINDS) * row + column + 1)
                for side in _SIDES:
                    axes.plot(
                        COUNTS, [part[kind][side][str(each)][name] for each in COUNTS], marker="o", label=side
                    )
                axes.axvline(part["slots"] * engines, color="grey", linewidth=0.8, linestyle=":")
                axes.set_xscale("log", base=2)
                axes.set_xticks(COUNTS, [str(each) for each in COUNTS])
                axes.set_yscale("linear" if row == 0 else "log")
                axes.set_ylim(bottom=0 if row == 0 else None)
                axes.set_title(f"{kind}: {title}", loc="left")
                axes.set_xlabel("adapters")
                axes.spines[["top", "right"]].set_visible(False)
                if not row and not column:
                    axes.legend(frameon=False)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return re.sub(r"[ \t]+\n", "\n", written.getvalue())
