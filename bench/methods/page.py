"""The rows as ``docs/methods.md``."""

from collections.abc import Sequence
from typing import Final

from bench.markdown import table
from bench.methods.measure import Interval, Row

_INTRO: Final = """\
# Training methods, measured

Written by `make methods`: every built-in recipe (`trainer/recipes/builtin/`) trained on the demo base
(1.8 million parameters, two CPU cores, float32) and measured on **generated answers** to held-out prompts
(greedy), never on training rewards. *Before* is the bare base, or (†) the adapter that training started
from. Brackets are 95 % intervals: Wilson's for shares, the normal one for means; *change* is paired, case
by case. A method counts as working when the interval of its change excludes zero and valid JSON loses at
most 3 points. One run, one seed each: figures of a model this small say that a method works, not how well
it will do on yours.

Every adapter was pushed as a version and loaded into a real vLLM, where its slot had to show its fingerprint
(*attested*). `bench/results/methods.json` holds the figures.
"""


def page(rows: Sequence[Row]) -> str:
    worked = [row for row in rows if row.works]
    minutes = f"{sum(row.total_seconds for row in rows) / 60:.0f} minutes"
    lines = [_INTRO, f"{len(worked)} of {len(rows)} recipes reach their target, in {minutes} altogether.", ""]
    lines += ["## Effect", ""]
    lines += table(
        ["method", "recipe", "target", "before", "after", "change", "n", "learning", "works"],
        [
            [
                row.shows,
                f"`{row.recipe}`",
                f"`{row.target}`",
                _figure(row.before) + (" †" if row.start else ""),
                _figure(row.after),
                _change(row.moved),
                str(row.n),
                f"{row.seconds:.0f} s",
                "yes" if row.works else "**no**",
            ]
            for row in rows
        ],
    )
    lines += ["", "## Side effects", ""]
    lines += table(
        ["recipe", "valid JSON", "facts copied", "words", "KL to the base, nats/token", "alarms", "attested"],
        [
            [
                f"`{row.recipe}`",
                _side(row, "valid_json", percent=True),
                _side(row, "copied", percent=True),
                _side(row, "words"),
                f"{row.side['kl'][1]:.3f}" if "kl" in row.side else "",
                "; ".join(row.alarms),
                row.attested,
            ]
            for row in rows
        ],
    )
    lines += ["", "## Settings", ""]
    lines += table(
        ["recipe", "method", "settings that differ from the defaults"],
        [
            [
                f"`{row.recipe}`",
                f"`{row.method}`",
                ", ".join(f"{name} {value}" for name, value in row.settings.items() if name != "method"),
            ]
            for row in rows
        ],
    )
    if remarks := [f"* `{row.recipe}`: {row.remark}" for row in rows if row.remark]:
        lines += ["", "## Remarks", "", *remarks]
    return "\n".join(lines) + "\n"


def _figure(one: Interval) -> str:
    return f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"


def _change(one: Interval) -> str:
    return f"{one.value:+.3g} [{one.low:+.3g}, {one.high:+.3g}]"


def _side(row: Row, name: str, *, percent: bool = False) -> str:
    if name not in row.side:
        return ""
    before, after = row.side[name]
    return f"{before:.0%} → {after:.0%}" if percent else f"{before:.1f} → {after:.1f}"
