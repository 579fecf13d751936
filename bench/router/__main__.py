"""``python -m bench.router [--quick] [--write]``: the stub engine, the router in front of it, wrk.

Engine, router and load generator share the machine, so only differences and ratios of one run mean anything.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.peers.environments import PeerMissing
from bench.peers.ratios import ratios
from bench.peers.running import peers
from bench.router import budget, idle, openloop, page, running
from bench.router.load import RequestsFailed, Side, WrkMissing, load
from server.cli import render

RESULTS = Path(__file__).parents[1] / "results"
_PORT = 18411
_IDLE_STREAMS = 2000
_REQUESTS = 200_000
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short runs, and 20,000 requests for the memory")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results")
    parser.add_argument("--alone", action="store_true", help="without the peers (no ratios)")
    given = parser.parse_args()
    try:
        with ExitStack() as stack:
            sides = [] if given.alone else stack.enter_context(peers())
            result = measure(quick=given.quick, peers=sides)
    except (PeerMissing, WrkMissing, RequestsFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    render.table("The router over an engine that costs nothing", ["figure", "value"], page.figures(result))
    render.table("Microseconds of a request", ["step", "µs"], page.budget(result))
    if given.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "router.json").write_text(json.dumps(result, indent=1) + "\n")
        (RESULTS / "router.svg").write_text(page.plot(result))


def measure(*, quick: bool = False, peers: Sequence[Side] = ()) -> dict[str, object]:
    """Everything, side by side in one run. ``peers`` are running already, in front of an engine like ours."""
    machine = _machine()
    seconds, repeats = (2.0, 1) if quick else (3.0, 3)
    with (
        tempfile.TemporaryDirectory(prefix="tenon-bench-") as folder,
        running.stub() as engine,
        running.router(Path(folder), engine, _PORT) as router,
    ):
        sides = [running.direct(engine), running.routed(router), *peers]
        running.receipt(router)
        render.note("warming up")
        for side in sides:
            load(side, clients=8, seconds=1)
            load(side, clients=8, seconds=1, stream=True)
        found: dict[str, dict[str, list[float]]] = {side.name: {} for side in sides}
        for _ in range(repeats):  # in turns, so that a noisy neighbour is everybody's
            for side in sides:
                _together(found[side.name], side, seconds)
        figures = {side: _medians(runs) for side, runs in found.items()}
        late: dict[str, list[float]] = {side.name: [] for side in sides[:2]}
        for _ in range(repeats):
            for side in sides[:2]:
                render.note(f"{side.name}: 500 requests a second, open loop")
                late[side.name].append(openloop.measure(side, per_second=500, seconds=2 * seconds)[1])
        for name, found_late in late.items():
            figures[name]["open_ms_p99_500"] = statistics.median(found_late)
        before = router.cpu_seconds
        under = load(sides[1], clients=32, seconds=seconds)
        cpu = (router.cpu_seconds - before) / under.requests * 1e6
        memory = _memory(router, sides[1], 20_000 if quick else _REQUESTS)
        running.receipt(router)
    ours, engine_alone = figures["router"], figures["direct"]
    return {
        "added_ms_p50_1": ours["ms_p50_1"] - engine_alone["ms_p50_1"],
        "rps_32": ours["rps_32"],
        "streams_32": ours["streams_32"],
        "p99_added_ms_500": ours["open_ms_p99_500"] - engine_alone["open_ms_p99_500"],
        "rss_mb": max(memory.values()),
        "memory": memory,
        "cpu_us": cpu,
        **ratios(figures),
        "machine": machine,
        "sides": figures,
        "budget": budget.measure(),
    }


def _machine() -> dict[str, object]:
    """What the figures may depend on: how the interpreter was built, and what else ran here."""
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "python_optimized": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
    }


def _medians(runs: dict[str, list[float]]) -> Figures:
    return {name: statistics.median(values) for name, values in runs.items()}


def _together(found: dict[str, list[float]], side: Side, seconds: float) -> None:
    render.note(f"{side.name}: one client, 32 clients, 32 streams")
    alone = load(side, clients=1, seconds=seconds)
    together = load(side, clients=32, seconds=seconds)
    streams = load(side, clients=32, seconds=seconds, stream=True)
    for name, value in {
        "ms_p50_1": alone.p50_ms,
        "rps_1": alone.per_second,
        "rps_32": together.per_second,
        "ms_p99_32": together.p99_ms,
        "streams_32": streams.per_second,
        "streams_ms_p99_32": streams.p99_ms,
    }.items():
        found.setdefault(name, []).append(value)


def _memory(router: running.Process, side: Side, requests: int) -> Figures:
    """Megabytes of the router: before, after ``requests``, and with idle streams open."""
    render.note(f"{requests:,} requests, then {_IDLE_STREAMS:,} idle streams")
    found = {"before": router.rss_mb}
    asked = 0
    while asked < requests:
        asked += load(side, clients=32, seconds=2).requests
    found[f"after_{asked}_requests"] = router.rss_mb
    hold = side.streams[0]
    hold = type(hold)(hold.body.replace(b"invoice 4711", b"HOLD"), hold.headers)

    async def open_streams() -> None:
        writers = await idle.streams(side.url, hold, _IDLE_STREAMS)
        found[f"with_{_IDLE_STREAMS}_idle_streams"] = router.rss_mb
        for writer in writers:
            writer.close()
            await writer.wait_closed()

    asyncio.run(open_streams())
    return found


if __name__ == "__main__":
    main()
