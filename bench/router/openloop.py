"""Requests at fixed times, whether or not earlier ones were answered: no coordinated omission.

Latency counts from when a request was due, so a side that stalls is charged for those that had to wait.
``python -m bench.router.openloop`` is started by ``measure`` in a process of its own.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import httptools
import uvloop

from bench.router.load import Request, RequestsFailed, Side

_now = time.perf_counter
"""Not the loop's clock: uvloop's has whole milliseconds and stands still while callbacks run."""
_PATIENCE = 10.0
"""Seconds for the last answers."""


class _Client(asyncio.Protocol):
    def __init__(self, free: "deque[_Client]", took: list[float]) -> None:
        self._free = free
        self._took = took
        self._parser = httptools.HttpResponseParser(self)
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, data: bytes, due: float) -> None:
        self._due = due
        self._transport.write(data)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.failed += self._parser.get_status_code() != 200
        self._took.append(_now() - self._due)
        self._free.append(self)


async def _run(url: str, requests: list[bytes], per_second: float, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    free: deque[_Client] = deque()
    clients: list[_Client] = []
    took: list[float] = []
    for _ in range(64):
        _, client = await loop.create_connection(
            lambda: _Client(free, took), parts.hostname or "", parts.port or 80
        )
        clients.append(client)
    free.extend(clients)
    total, sent = int(per_second * seconds), 0
    began = _now()
    while sent < total:
        due = began + sent / per_second
        if (wait := due - _now()) > 0:
            await asyncio.sleep(wait)
        while not free:  # noqa: ASYNC110 (its latency counts from when it was due)
            await asyncio.sleep(0.0005)
        free.popleft().send(requests[sent % len(requests)], due)
        sent += 1
    while len(took) < total and _now() < began + seconds + _PATIENCE:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    took.sort()
    failed = sum(client.failed for client in clients) + total - len(took)
    return {"p50": took[len(took) // 2], "p99": took[int(len(took) * 0.99)], "failed": failed}


def measure(side: Side, *, per_second: float, seconds: float) -> tuple[float, float]:
    """(p50, p99) in milliseconds. Raises RequestsFailed."""
    given = json.dumps(
        {
            "url": side.url,
            "requests": [{**asdict(request), "body": request.body.decode()} for request in side.wholes],
            "per_second": per_second,
            "seconds": seconds,
        }
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench.router.openloop"],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    found = json.loads(done.stdout)
    if found["failed"]:
        raise RequestsFailed(f"{side.name}: {found['failed']:.0f} requests failed in the open loop")
    return found["p50"] * 1000, found["p99"] * 1000


def raw(url: str, request: Request) -> bytes:
    parts = urlsplit(url)
    headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(request.body), request.body)


def main() -> None:
    given = json.load(sys.stdin)
    requests = [
        raw(given["url"], Request(request["body"].encode(), request["headers"]))
        for request in given["requests"]
    ]
    found = uvloop.run(_run(given["url"], requests, given["per_second"], given["seconds"]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
