"""``python -m bench.engines.start [--rounds N] [--write]``: seconds from an engine's start to /health.

Real vLLM on a CPU, once as it comes (its interpreters import it one after another) and once through the
launcher (one does, the others are forked from it), in turns. The first start of each fills caches and is not
counted. Tokens per second are there to show that the forked workers' threads are what they were.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from server.cli import render
from server.engines.client import VllmClient
from server.engines.command import command
from server.engines.process import EngineProcess
from server.engines.spec import LAUNCHER, VLLM, EngineSpec
from tests.engine.conftest import demo_spec

RESULTS = Path(__file__).parents[1] / "results"
_CLIENTS = 8
_TOKENS = 96


@dataclass(frozen=True, slots=True)
class Start:
    seconds: float
    mebibytes: float
    """Of all processes, shared pages counted once."""
    processor_seconds: float
    tokens_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="starts of each kind")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results")
    given = parser.parse_args()
    result = measure(rounds=given.rounds)
    render.table(
        "The start of an engine", ["figure", "value"], [[name, str(v)] for name, v in result.items()]
    )
    if given.write:
        (RESULTS / "start.json").write_text(json.dumps(result, indent=1) + "\n")


def measure(*, rounds: int) -> dict[str, object]:
    """vLLM keeps what it learns of model classes in its user's cache, so both have one of their own for all
    rounds, as an engine that is started again."""
    starts: dict[str, list[Start]] = {"stock": [], "launcher": []}
    with tempfile.TemporaryDirectory(prefix="tenon-bench-") as folder:
        for turn in range(rounds + 1):
            for name, program in (("stock", VLLM), ("launcher", LAUNCHER)):
                home = Path(folder) / name
                home.mkdir(exist_ok=True)
                start = asyncio.run(_start(home, demo_spec(program=program)))
                if turn:
                    starts[name].append(start)
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, vLLM 0.32.0 on CPU, float32, demo base",
        "rounds": rounds,
        **{
            f"{figure}_{name}": round(statistics.median(getattr(start, figure) for start in of), 1)
            for figure in Start.__dataclass_fields__
            for name, of in starts.items()
        },
        "seconds_of_each_stock": [round(start.seconds, 1) for start in starts["stock"]],
        "seconds_of_each_launcher": [round(start.seconds, 1) for start in starts["launcher"]],
    }


async def _start(home: Path, spec: EngineSpec) -> Start:
    argv, environment = command(spec, {"PATH": os.environ["PATH"], "HOME": str(home)})
    process = EngineProcess(argv=argv, environment=environment, log=home / "vllm.log", grace=5)
    begun = time.perf_counter()
    process.start()
    try:
        async with VllmClient(spec.url) as client:
            await process.wait_ready(client.answers, limit=400)
            seconds = time.perf_counter() - begun
            used = _processor_seconds(_members(process))
            await _rate(spec)
            rate = max([await _rate(spec) for _ in range(4)])
            return Start(seconds, _mebibytes(_members(process)), used, rate)
    finally:
        await process.stop()


async def _rate(spec: EngineSpec) -> float:
    body = {"model": spec.served_name, "max_tokens": _TOKENS, "min_tokens": _TOKENS, "temperature": 0}

    async def answer(session: aiohttp.ClientSession, client: int) -> None:
        prompt = [40 + client, *range(50, 80)]
        async with session.post(f"{spec.url}/v1/completions", json={**body, "prompt": prompt}) as response:
            response.raise_for_status()
            await response.read()

    async with aiohttp.ClientSession() as session:
        begun = time.perf_counter()
        await asyncio.gather(*(answer(session, client) for client in range(_CLIENTS)))
        return _CLIENTS * _TOKENS / (time.perf_counter() - begun)


def _members(process: EngineProcess) -> list[Path]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[2]) == process.pid:
                found.append(stat.parent)
        except OSError:
            continue
    return found


def _processor_seconds(members: list[Path]) -> float:
    """With children that have ended: the interpreter that vLLM asks about a model class is one."""
    ticks = 0
    for member in members:
        fields = (member / "stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _mebibytes(members: list[Path]) -> float:
    rolled = "".join((member / "smaps_rollup").read_text() for member in members)
    return sum(int(line.split()[1]) for line in rolled.splitlines() if line.startswith("Pss:")) / 1024


if __name__ == "__main__":
    main()
