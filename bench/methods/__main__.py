"""``python -m bench.methods [--only NAME ...] [--fresh]``"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from bench.methods.entries import ENTRIES
from bench.methods.measure import Row, push, read, run
from bench.methods.page import page
from bench.methods.serving import attest_all
from registry.digests import Digest
from registry.models import Tenant
from server.assembly import bases
from server.assembly.catalog import initialise, open_catalog
from server.cli import render
from server.workspace import Workspace, find
from trainer.trained import TrainedRun

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".tenon" / "methods"
RESULTS = ROOT / "bench" / "results" / "methods.json"
PAGE = ROOT / "docs" / "methods.md"
TENANTS = ("bank_a", "retail_b", "saas_c")
BASES = ("demo", "demo-student")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train every method on the demo base and measure it")
    parser.add_argument("--only", nargs="*", default=[], metavar="RECIPE", help="print these, write nothing")
    parser.add_argument("--fresh", action="store_true", help="train again what is trained")
    arguments = parser.parse_args()
    workspace = _workspace()
    catalog = open_catalog(workspace)
    rows: list[Row] = []
    runs: dict[Digest, TrainedRun] = {}
    for entry in ENTRIES:
        if arguments.only and entry.recipe not in arguments.only:
            continue
        trained = run(workspace, catalog, entry.recipe, fresh=arguments.fresh)
        version = push(workspace, catalog, trained)
        runs[version] = trained
        rows.append(read(entry, trained, version))
        _show(rows[-1:])
    attested = attest_all(workspace, catalog, runs)
    rows = [replace(row, attested=attested[Digest(row.version)]) for row in rows]
    render.table("", ["recipe", "attested"], [[row.recipe, row.attested] for row in rows])
    if arguments.only:
        return
    RESULTS.write_text(json.dumps({"rows": [row.as_json() for row in rows]}, indent=1) + "\n")
    PAGE.write_text(page(rows))
    render.note(f"Written: {PAGE.relative_to(ROOT)} and {RESULTS.relative_to(ROOT)}")


def _workspace() -> Workspace:
    workspace = find(PLACE) if PLACE.exists() else initialise(PLACE)
    catalog = open_catalog(workspace)
    known = {tenant.id for tenant in catalog.tenants()}
    for tenant in TENANTS:
        if tenant not in known:
            catalog.create_tenant(Tenant(id=tenant, display_name=tenant), actor="make methods")
    for base in BASES:
        bases.register(workspace, catalog, name=base, source=base, revision=None, actor="make methods")
    return workspace


def _show(rows: list[Row]) -> None:
    render.table(
        "",
        ["recipe", "target", "before", "after", "change", "valid JSON", "learning"],
        [
            [
                row.recipe,
                row.target,
                f"{row.before.value:.3g}",
                f"{row.after.value:.3g}",
                f"{row.moved.value:+.3g} [{row.moved.low:+.3g}, {row.moved.high:+.3g}]",
                "" if row.json_points is None else f"{row.json_points:+.1f} points",
                f"{row.seconds:.0f} s",
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
