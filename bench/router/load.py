"""wrk (https://github.com/wg/wrk): as many requests as possible, each client after its answer."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

# What a run found, as JSON: wrk's own report rounds.
_DONE = """
done = function(summary, latency, requests)
  io.write(string.format('\\nRESULT {"requests":%d,"us":%d,"p50":%f,"p99":%f,"errors":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout))
end
"""


class WrkMissing(Exception):
    def __init__(self) -> None:
        super().__init__("the load generator wrk is missing: install it (apt install wrk) and run this again")


class RequestsFailed(Exception):
    """A benchmark of errors measures nothing."""


@dataclass(frozen=True)
class Request:
    """One of those that a side is asked, in turn."""

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Side:
    """Something that can be asked: the engine directly, the router, a peer."""

    name: str
    url: str
    """Of its chat completions."""
    wholes: Sequence[Request]
    streams: Sequence[Request]


@dataclass(frozen=True)
class Load:
    per_second: float
    p50_ms: float
    p99_ms: float
    requests: int


def load(side: Side, *, clients: int, seconds: float, stream: bool = False) -> Load:
    """Raises WrkMissing, RequestsFailed (any answer that was not 200, or did not come)."""
    if shutil.which("wrk") is None:
        raise WrkMissing
    requests = side.streams if stream else side.wholes
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_script(requests))
        script.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{clients}",
            f"-d{seconds:g}s",
            "--timeout=10s",
            "-s",
            script.name,
            side.url,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RequestsFailed(f"wrk ended with {done.returncode}: {done.stderr.strip()[:300]}")
    found = json.loads(line.removeprefix("RESULT "))
    if found["errors"] or not found["requests"]:
        raise RequestsFailed(f"{side.name}: {found['errors']} of {found['requests']} requests failed")
    return Load(
        per_second=found["requests"] * 1e6 / found["us"],
        p50_ms=found["p50"] / 1000,
        p99_ms=found["p99"] / 1000,
        requests=found["requests"],
    )


def _script(requests: Sequence[Request]) -> str:
    lines = ["local all, at = {}, 0", "init = function(args)"]
    for number, request in enumerate(requests, start=1):
        headers = ",".join(f"[{json.dumps(k)}]={json.dumps(v)}" for k, v in request.headers.items())
        body = json.dumps(request.body.decode())
        lines.append(f'  all[{number}] = wrk.format("POST", nil, {{{headers}}}, {body})')
    lines += ["end", "request = function()", f"  at = at % {len(requests)} + 1", "  return all[at]", "end"]
    return "\n".join(lines) + _DONE
