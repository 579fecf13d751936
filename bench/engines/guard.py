"""``python -m bench.engines.guard [--rounds N] [--write]``: real vLLM on a CPU with the guard and without.

Both engines are up all the time and one of them works at a time, in turns, so that whatever else the machine
does falls on both. Tokens per second are noisy on a shared machine; processor time per token is less so; and
the time inside the checks, which the guard counts itself, is exact: it is given as a share of wall time.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from registry.names import engine_name
from server.cli import render
from server.engines import guarded
from tests.engine.conftest import write_lora
from tests.engine.guarding import Guarded, answer, load, started, version

RESULTS = Path(__file__).parents[1] / "results"
_CLIENTS = 8
_TOKENS = 96
_ADAPTERS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each engine")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results")
    given = parser.parse_args()
    result = measure(rounds=given.rounds)
    render.table("The guard inside vLLM", ["figure", "value"], [[name, str(v)] for name, v in result.items()])
    if given.write:
        (RESULTS / "guard.json").write_text(json.dumps(result, indent=1) + "\n")


def measure(*, rounds: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="tenon-bench-") as folder:
        root = Path(folder)
        files = [write_lora(root / f"lora-{number}", seed=number) for number in range(_ADAPTERS)]
        for side in ("with", "without"):
            (root / side).mkdir()
        with (
            started(root / "with", slots=_ADAPTERS, names=8, audit_every=64) as watched,
            started(root / "without", slots=_ADAPTERS, names=8, guard=False) as plain,
        ):
            return asyncio.run(_turns(watched, plain, files, rounds))


async def _turns(watched: Guarded, plain: Guarded, files: list[Path], rounds: int) -> dict[str, object]:
    models: list[str] = []
    for engine in (watched, plain):
        async with engine.client() as client:
            models = []
            for number, folder in enumerate(files):
                one = version(engine.cache, folder, adapter=f"adapter-{number}")
                await load(client, engine.cache, one)
                models.append(engine_name(one))
        await _work(engine, models, "warm")
    before = guarded.prove(watched.reports, loads=len(files))
    rates: dict[bool, list[float]] = {True: [], False: []}
    used: dict[bool, float] = {True: 0.0, False: 0.0}
    busy = 0.0
    for turn in range(rounds):
        for watch in (True, False) if turn % 2 else (False, True):
            engine = watched if watch else plain
            spent_before = _cpu_seconds(engine)
            seconds = await _work(engine, models, f"turn-{turn}")
            used[watch] += _cpu_seconds(engine) - spent_before
            rates[watch].append(_CLIENTS * _TOKENS / seconds)
            busy += seconds if watch else 0.0
    after = guarded.totals(watched.reports)
    steps, spent = after.steps - before.steps, after.nanoseconds - before.nanoseconds
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, vLLM 0.32.0 on CPU, float32, demo base",
        "load": f"{_CLIENTS} clients, {_TOKENS} tokens, {_ADAPTERS} adapters",
        "rounds": rounds,
        "tokens_per_second_with": round(statistics.median(rates[True]), 1),
        "tokens_per_second_without": round(statistics.median(rates[False]), 1),
        "ratio_of_medians": round(statistics.median(rates[True]) / statistics.median(rates[False]), 4),
        "ratio_of_best": round(max(rates[True]) / max(rates[False]), 4),
        "cpu_milliseconds_a_token_with": round(1000 * used[True] / (rounds * _CLIENTS * _TOKENS), 3),
        "cpu_milliseconds_a_token_without": round(1000 * used[False] / (rounds * _CLIENTS * _TOKENS), 3),
        "steps": steps,
        "microseconds_of_checks_a_step": round(spent / steps / 1000, 2),
        "milliseconds_of_a_step": round(1000 * busy / steps, 2),
        "percent_of_time_in_checks": round(100 * spent / 1e9 / busy, 3),
        "violations": after.violations,
    }


def _cpu_seconds(engine: Guarded) -> float:
    """Of all processes of the engine: what other programs take of the machine does not count."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == engine.process.pid:
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


async def _work(engine: Guarded, models: list[str], salt: str) -> float:
    """Seconds for all clients."""
    start = time.perf_counter()
    answers = await asyncio.gather(
        *(
            answer(engine, models[client % len(models)], count=_TOKENS, salt=f"{salt}-{client}")
            for client in range(_CLIENTS)
        )
    )
    assert all(len(tokens) == _TOKENS for tokens in answers)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
