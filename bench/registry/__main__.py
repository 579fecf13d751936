"""``python -m bench.registry [--registry FILE] [--tenants N] [--versions N] [--pushes N] [--write] …``"""

import argparse
import asyncio
import json
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bench.registry import following, paging, population, pushing, telling, timing
from bench.registry.page import plot, rows
from bench.registry.stores import Opening, copied, postgresql, sqlite
from registry.feed import Snapshot, encode, parse
from registry.models import Role
from registry.store.database import upgrade
from server.cli import render
from tests.support import postgres

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description="The registry at 10,000 tenants and 50,000 versions")
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--versions", type=int, default=50_000)
    parser.add_argument("--pushes", type=int, default=1000, help="at the same time; 0: none")
    parser.add_argument("--registry", type=Path, help="filled before, or to be filled and kept")
    parser.add_argument("--sqlite-only", action="store_true")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results")
    asked = parser.parse_args()
    size = population.Size(tenants=asked.tenants, versions=asked.versions)
    result: dict[str, Any] = {"tenants": size.tenants, "versions": size.versions, "stores": {}}
    with ExitStack() as stack:
        server = None if asked.sqlite_only else _postgres(stack)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tenon-bench-"))
        filled = partial(sqlite, asked.registry or Path(folder) / "registry.db")
        if asked.registry is None or not asked.registry.exists():
            result["fill"] = _fill(filled, size)
        if server is not None:
            url = stack.enter_context(server.database())
            with filled() as source, postgresql(url) as target:
                copied(source, target)
            result["stores"]["postgresql"] = store(partial(postgresql, url), size)
        result["stores"] = {"sqlite": store(filled, size)} | result["stores"]
        if server is not None and asked.pushes:
            with server.database(migrated=False) as url:
                render.note(f"{asked.pushes} pushes at the same time")
                result["pushes"] = pushing.measure(url, count=asked.pushes)
    render.table("The registry, measured", ["figure", *result["stores"]], rows(result))
    if asked.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "registry.json").write_text(json.dumps(result, indent=1) + "\n")
        (RESULTS / "registry.svg").write_text(plot(result))


def store(opening: Opening, size: population.Size) -> dict[str, Any]:
    """Every figure of one database."""
    found: dict[str, Any] = {}
    with opening() as opened, telling.control(opened) as (catalog, url):
        found["snapshot"], body = telling.snapshot(catalog)
        found["snapshot"]["memory MB"] = timing.megabytes(telling.snapshot_bytes, opening)
        one, none, sent = telling.delta(catalog)
        found["delta"] = {"one change ms": one.p50, "nothing new ms": none.p50, "bytes": sent}
        found["router"] = _router(body, size)
        found["follow"] = asyncio.run(telling.revocations(catalog, url))
        _, secret = catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="bench")
        found["pages ms"] = paging.measure(url, secret, size)
    return found


def _router(body: bytes, size: population.Size) -> dict[str, Any]:
    parsing, compiling, tables = following.compiled(body)
    news = parse(body)
    assert isinstance(news, Snapshot)
    tenth = telling.tenants_first(news, size.tenants // 10)
    small = following.compiled(encode(tenth))[2]
    few = population.Size(tenants=size.tenants // 10, versions=size.versions // 10)
    return {
        "parse s": parsing,
        "compile s": compiling,
        "memory MB": timing.megabytes(following.compiled, body),
        "change ms": {name: spread.p50 for name, spread in following.changes(tables).items()},
        "look us": {name: spread.p50 for name, spread in following.looks(tables, size).items()},
        "look us p99": {name: spread.p99 for name, spread in following.looks(tables, size).items()},
        "look us, a tenth": {name: spread.p50 for name, spread in following.looks(small, few).items()},
    }


def _fill(opening: Opening, size: population.Size) -> dict[str, float]:
    began = time.perf_counter()

    def progress(done: int) -> None:
        if done % 10_000 == 0:
            render.note(f"{done:,} entries in {time.perf_counter() - began:.0f} s")

    with opening() as opened:
        upgrade(opened)
        entries = population.fill(opened, size, progress)
    return {"entries": float(entries), "ms each": 1e3 * (time.perf_counter() - began) / entries}


def _postgres(stack: ExitStack) -> postgres.PostgresServer | None:
    try:
        return stack.enter_context(postgres.running())
    except RuntimeError as error:
        render.note(f"without PostgreSQL: {error}")
        return None


if __name__ == "__main__":
    main()
