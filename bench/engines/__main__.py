"""``python -m bench.engines [PART ...] [--write]``: whole stacks with real vLLMs on a CPU.

``promotions``: two engines, clients that ask, promotions meanwhile. ``adapters``: one engine behind the
router beside a plain vLLM, then two beside two, asked for more and more adapters. ``saturation``: one engine
with cores of its own, busy through the router and directly. Otherwise engines, router, control plane and
clients share the machine; everything that is compared was measured in one run.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.engines import adapters, page, promotions, saturation
from bench.engines.clients import connected
from bench.engines.scene import Scene, Served, scene, served
from registry.names import engine_name
from server.assembly.stack import cores_of
from server.cli import render
from server.engines.client import VllmClient
from server.mixup.ours import MODEL
from tests.engine.guarding import Guarded, started

RESULTS = Path(__file__).parents[1] / "results"
PARTS = ("promotions", "adapters", "saturation")
_PROMOTIONS = 50
_SLOTS = 16
"""A boot loads four times as many names as it has slots: room for all versions of the promotions."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: {' '.join(PARTS)}")
    parser.add_argument("--promotions", type=int, default=_PROMOTIONS)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results")
    given = parser.parse_args(argv)
    kept = RESULTS / "engines.json"
    result: dict[str, Any] = json.loads(kept.read_text()) if given.parts and kept.exists() else {}
    for part in given.parts or PARTS:
        machine = {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2)}
        match part:
            case "promotions":
                found = _promotions(given.promotions)
            case "adapters":
                found = _adapters(given.seconds)
            case _:
                found = _saturation(given.seconds)
        result[part] = found | {"machine": machine | {"load_after": round(os.getloadavg()[0], 2)}}
        if given.write:  # at once: a part takes minutes
            kept.write_text(json.dumps(result, indent=1) + "\n")
    render.table("Engines on a CPU, demo base", page.COLUMNS, page.figures(result))
    if "adapters" in result:
        render.table("Tokens a second by number of adapters", page.RATES, page.rates(result))
        if given.write:
            (RESULTS / "engines.svg").write_text(page.plot(result))


def _promotions(count: int) -> dict[str, Any]:
    with scene(promotions.TENANTS) as found:
        tenants = sorted(found.keys)
        render.note(f"{count + promotions.COLD} more versions and their fingerprints")
        pending = [found.push(tenants[number % len(tenants)]) for number in range(count + promotions.COLD)]
        began = time.perf_counter()
        with served(found, engines=2, slots=_SLOTS) as running:
            start = time.perf_counter() - began
            return {
                "two_engines_start_s": round(start, 1),
                **asyncio.run(promotions.measure(found, running, pending)),
            }


def _adapters(seconds: float) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    with scene(max(adapters.COUNTS)) as found:
        for engines in sorted(set(adapters.KINDS.values())):
            kinds = [kind for kind, of in adapters.KINDS.items() if of == engines]
            with (
                served(found, engines=engines, slots=adapters.SLOTS) as running,
                _plain(engines, len(found.keys)) as plain,
            ):
                measured |= asyncio.run(_compared(found, running, plain, kinds, seconds))
    return {
        "slots": adapters.SLOTS,
        **measured,
        "cliffs": {
            kind: {
                side: round(adapters.cliff(figures, adapters.SLOTS * engines), 2)
                for side, figures in measured[kind].items()
            }
            for kind, engines in adapters.KINDS.items()
        },
    }


@contextmanager
def _plain(engines: int, names: int) -> Iterator[list[Guarded]]:
    """Each with cores of its own, if there are several."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tenon-bench-")))
        found = []
        for number in range(engines):
            home = folder / str(number)
            home.mkdir()
            own = cores_of(number, engines, cores) if engines > 1 else None
            made = started(home, guard=False, slots=adapters.SLOTS, names=names, cores=own)
            found.append(stack.enter_context(made))
        yield found


def _saturation(seconds: float) -> dict[str, Any]:
    before = os.sched_getaffinity(0)
    engine, others = saturation.halves()
    os.sched_setaffinity(0, engine)  # vLLM counts the cores that it may use when it starts
    try:
        with (
            scene(saturation.TENANTS) as found,
            served(found, engines=1, slots=saturation.TENANTS) as running,
        ):
            for pid in (*running.processes.values(), os.getpid()):
                saturation.move(pid, others)
            return asyncio.run(saturation.measure(found, running, seconds))
    finally:
        os.sched_setaffinity(0, before)


async def _compared(
    found: Scene, running: Served, plain: Sequence[Guarded], kinds: Sequence[str], seconds: float
) -> dict[str, Any]:
    live = {tenant: found.stack.live(tenant) for tenant in sorted(found.keys)}
    for engine in plain:
        async with VllmClient(engine.spec.url) as client:
            for known in live.values():
                await client.load(engine_name(known.version), known.folder)
    fingerprint = next(iter(found.fingerprints.values()))
    words = sorted({token for probe in fingerprint.probes for token in probe.token_ids})
    sides = [
        adapters.Side("tenon", [running.url], [(MODEL, found.keys[tenant]) for tenant in live]),
        adapters.Side(
            "plain vLLM",
            [engine.spec.url for engine in plain],
            [(engine_name(each.version), None) for each in live.values()],
        ),
    ]
    async with connected() as session:
        return {kind: await adapters.measure(session, kind, sides, words, seconds) for kind in kinds}


if __name__ == "__main__":
    main()
