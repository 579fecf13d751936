"""``python -m bench.mixup [TARGET …]``: ours, bare vLLM and the negative controls, one after another.

Writes bench/results/mixup.json after each target, and docs/mixup.md from it; with --device cuda only
bench/results/mixup-cuda.json, for the page is about CPUs. Exit status 1 when ours
has a mix-up or a danger that is not handled, or when a control was not caught.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from bench.mixup import page
from server.cli import render
from server.demo.build_base import SHIPPED_BASE
from server.engines.spec import Device
from server.mixup import ours, targets
from server.mixup.controls import CONTROLS
from server.mixup.ground import Plan
from server.mixup.report import COLUMNS, Report
from server.mixup.starting import Recipe
from server.settings import inherited_environment

_ROOT: Final = Path(__file__).parents[2]
RESULT: Final = _ROOT / "bench" / "results" / "mixup.json"
PAGE: Final = _ROOT / "docs" / "mixup.md"
TARGETS: Final = ("ours", "bare", *CONTROLS)
_BARE_REQUESTS: Final = 700
_CONTROL_REQUESTS: Final = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help="default: all of them; on a GPU those that more than the time can show",
    )
    parser.add_argument("--requests", type=int, default=2000, help="to ours, in its storms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=get_args(Device), default="cpu", help="what vLLM runs on")
    given = parser.parse_args()
    file = result_of(given.device)
    result = json.loads(file.read_text()) if given.targets and file.exists() else {}
    for target in given.targets or targets_on(given.device):
        tested = commit()
        report = asyncio.run(measure(target, given.device, seed=given.seed, requests=given.requests))
        render.table(target, COLUMNS, report.rows())
        result = merged(result, report, commit=tested)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if file == RESULT:
            PAGE.write_text(page.render(result), encoding="utf-8")
    if faults := shortcomings(result):
        print("\n".join(f"error: {fault}" for fault in faults), file=sys.stderr)
        raise SystemExit(1)


def targets_on(device: Device) -> tuple[str, ...]:
    """A GPU reads a long prompt as fast as a question gets there: cached or not, the time is the same."""
    return TARGETS if device == "cpu" else tuple(name for name in TARGETS if not _by_time(name))


def _by_time(target: str) -> bool:
    return target in CONTROLS and CONTROLS[target].denies_cache


def result_of(device: Device) -> Path:
    return RESULT if device == "cpu" else RESULT.with_name(f"mixup-{device}.json")


async def measure(target: str, device: Device, *, seed: int, requests: int) -> Report:
    recipe = Recipe(base=SHIPPED_BASE.resolve(), device=device)
    inherited = inherited_environment()
    if target in CONTROLS:
        return await targets.control(
            CONTROLS[target],
            recipe,
            seed=seed,
            requests=_CONTROL_REQUESTS,
            inherited=inherited,
            say=render.note,
        )
    count = _BARE_REQUESTS if target == "bare" else requests
    plan = Plan(seed=seed, requests=count, slots=recipe.slots, destructive=True)
    if target == "bare":
        return await targets.bare(recipe, plan, inherited=inherited, say=render.note)
    return await ours.started(recipe, plan, say=render.note)


def commit() -> str:
    """What was tested: verdicts are worth what they say of this code only."""
    asked = ["git", "-C", str(_ROOT), "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def merged(result: Mapping[str, Any], report: Report, *, commit: str) -> dict[str, Any]:
    """Verdicts of each target first, and everything else below ``reports``."""
    reports = {**result.get("reports", {}), report.target: report.document() | {"commit": commit}}
    ours_ = reports.get("ours", {})
    return {
        "requests": ours_.get("requests", 0),
        "mixups": ours_.get("mixups", 0),
        **{target: reports[target]["verdicts"] for target in TARGETS if target in reports},
        "reports": {target: reports[target] for target in TARGETS if target in reports},
    }


def shortcomings(result: Mapping[str, Any]) -> list[str]:
    """What is not as it has to be, in words."""
    faults = []
    reports: Mapping[str, Any] = result["reports"]
    if "ours" in reports:
        open_ = [danger for danger, verdict in result["ours"].items() if verdict != "handled"]
        if result["mixups"]:
            faults.append(f"ours: {result['mixups']} mix-ups")
        if open_:
            faults.append(f"ours: not handled: {', '.join(open_)}")
    for name, control in CONTROLS.items():
        if name in reports and result[name][control.caught_by] != "present":
            faults.append(f"{name} was not caught: {control.caught_by} is {result[name][control.caught_by]}")
    return faults


if __name__ == "__main__":
    main()
