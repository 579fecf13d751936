"""``python -m bench.performance``: docs/performance.md, from what is in bench/results. Measures nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.engines import page as engines
from bench.markdown import table
from bench.registry import page as registry
from bench.router import page as router

RESULTS: Final = Path(__file__).parent / "results"
PAGE: Final = Path(__file__).parents[1] / "docs/performance.md"
_READ: Final = ("router", "engines", "start", "guard", "registry")
_HEAD: Final = """# Performance, measured

Written by `python -m bench.performance` from `bench/results`; `make bench` measures the router and the
engines again, `python -m bench.registry`, `python -m bench.engines.start` and `python -m
bench.engines.guard` the rest (each with `--write`).

All of it on two cores of a shared machine, clients included, and engines are real vLLMs on the CPU: a
figure by itself says little, one beside another of the same run says something, and differences under a
tenth are the machine's. A *goal* is what the project set out to reach; where it is missed, the table shows
it.
"""
_ROUTER: Final = """## The router

Before an engine that costs nothing, so that only the router is seen; `direct` is that engine itself.
LiteLLM's proxy and vllm-router (Rust) stand before the same engine in the same run; neither knows tenants,
checks answers or keeps records.

![requests and streams a second](../bench/results/router.svg)
"""
_SIDES: Final = {
    "1 client: median, ms": "ms_p50_1",
    "32 clients: requests/s": "rps_32",
    "99 % within, ms": "ms_p99_32",
    "32 clients: streams/s": "streams_32",
}
_GOALS: Final = {
    "added_ms_p50_1": "added at the median, one client, ms",
    "p99_added_ms_500": "added at the 99th percentile, 500 requests a second, ms",
    "rps_32": "requests a second, 32 clients",
    "streams_32": "streams a second, 32 clients",
    "rss_mb": "memory with 2,000 idle streams, MB",
    "ratio_litellm": "requests a second, times LiteLLM's",
    "ratio_litellm_streams": "streams a second, times LiteLLM's",
    "ratio_vllm_router": "requests a second, times vllm-router's",
    "ratio_vllm_router_streams": "streams a second, times vllm-router's",
}
_ENGINES: Final = """## Engines

*Promotions* and roll backs run on two engines while clients ask; *cold* is an adapter that no engine has,
fetched, verified, loaded and attested on both. The *cliff* is how much slower the worst number of adapters
beyond the LoRA slots is than as many as slots. `deep`: four clients for each adapter; `spread`: 32 in all;
`fleet`: 32 before two engines of four slots each, plain vLLMs asked in turn. Plain vLLM keeps its rate by
letting adapters wait for as long as others are asked (see the longest wait). With one client for each of 32
adapters, four requests at a time is all that four slots can work on, whoever chooses them.

![tokens a second and the longest wait](../bench/results/engines.svg)
"""
_START: Final = """## The start of an engine

From the start of the process until it answers, as vLLM comes and with one import for all its processes
([how](concepts/engines.md)).
"""
_GUARD: Final = """## The guard inside vLLM

Its own clock, in every step ([what it does](concepts/guard.md)); tokens a second with and without are
medians of runs in turns.
"""
_REGISTRY: Final = """## The registry

10,000 tenants and 50,000 versions; `pushes` compares a push (checked, signed, in the log) with an upload to
the same S3 server.

![shares of the limits](../bench/results/registry.svg)
"""


def main() -> None:
    PAGE.write_text(render(read()), encoding="utf-8")


def read() -> dict[str, Any]:
    return {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in _READ}


def render(results: Mapping[str, Any]) -> str:
    sides = results["router"]["sides"]
    stores = list(results["registry"]["stores"])
    goals = [
        [name, "{} {:,g}".format(*router.GOALS[figure]), _number(results["router"][figure])]
        for figure, name in _GOALS.items()
    ]
    parts = [
        _HEAD,
        _ROUTER,
        _table(
            ["", *_SIDES],
            [[side, *(_number(found[name]) for name in _SIDES.values())] for side, found in sides.items()],
        ),
        _table(["figure", "goal", "measured"], goals),
        _table(["step of a request", "µs"], router.budget(results["router"])),
        _ENGINES,
        _table(engines.COLUMNS, engines.figures(results["engines"])),
        _table(engines.RATES, engines.rates(results["engines"])),
        _START,
        _flat(results["start"]),
        _GUARD,
        _flat(results["guard"]),
        _REGISTRY,
        _table(["figure", *stores], registry.rows(results["registry"])),
    ]
    return "\n".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.3g}"


def _flat(result: Mapping[str, Any]) -> str:
    rows = [[name.replace("_", " "), str(value)] for name, value in result.items()]
    return _table(["figure", "value"], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(table(columns, rows)) + "\n"


if __name__ == "__main__":
    main()
