"""The stub engine and the router as processes of their own, and what they will be asked."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson

from bench.router import world
from bench.router.load import Request, RequestsFailed, Side

ROOT = Path(__file__).parents[2]
_PATH = "/v1/chat/completions"
# With the rest of the body 600 bytes, as in the measurements of performance.md.
_WORDS = "Please pay invoice 4711 of Norvik Ltd over 640.00 EUR: ordered in March, delivered, accepted. "
_MESSAGES = [
    {
        "role": "system",
        "content": "You decide about payments: the decision, the amount and a reason.",
    },
    {"role": "user", "content": _WORDS * 4},
]


@dataclass(frozen=True)
class Process:
    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def rss_mb(self) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RequestsFailed("the router is gone")

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def stub() -> Iterator[Process]:
    with _started("bench.router.stub", "0") as process:
        assert process.stdout is not None
        yield Process(process.pid, int(process.stdout.readline()))


@contextmanager
def router(folder: Path, engine: Process, port: int) -> Iterator[Process]:
    with _started("bench.router.world", str(folder), str(port), engine.url) as process:
        found = Process(process.pid, port)
        _wait_until_ready(process, found)
        yield found


def direct(engine: Process) -> Side:
    """The engine itself, asked what the router would ask it."""
    schema = {"name": "house", "schema": world.SCHEMA, "strict": True}
    body = {
        "model": "tenon-0123456789abcdef",
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    return side("direct", engine.url, {}, [body])


def routed(router: Process) -> Side:
    """Every tenant's key in turn."""
    _, keys = world.scene("http://127.0.0.1:1")
    wholes, streams = list[Request](), list[Request]()
    for key in keys:
        one = side("router", router.url, {"Authorization": f"Bearer {key}"}, [{"model": "assistant"}])
        wholes += one.wholes
        streams += one.streams
    return Side("router", router.url + _PATH, wholes, streams)


def side(name: str, url: str, headers: dict[str, str], bodies: Sequence[Mapping[str, object]]) -> Side:
    """Peers are made with this, too: the same question under their own names."""
    every = {"Content-Type": "application/json", **headers}

    def requests(**more: object) -> list[Request]:
        return [Request(orjson.dumps({**body, "messages": _MESSAGES, **more}), every) for body in bodies]

    return Side(name, url + _PATH, requests(max_tokens=128), requests(max_tokens=128, stream=True))


def receipt(router: Process) -> None:
    """One answer, and its receipt fetched. Raises httpx.HTTPStatusError when there is none."""
    asked = routed(router).wholes[0]
    with httpx.Client(base_url=router.url, headers=asked.headers, trust_env=False) as client:
        answer = client.post(_PATH, content=asked.body).raise_for_status()
        client.get(f"/v1/receipts/{answer.headers['x-tenon-record']}").raise_for_status()


@contextmanager
def _started(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _wait_until_ready(process: subprocess.Popen[bytes], router: Process) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RequestsFailed("the router did not start")
        try:
            found = http.client.HTTPConnection("127.0.0.1", router.port, timeout=5)
            found.request("GET", "/readyz")
            if found.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            found.close()
        time.sleep(0.05)
    raise RequestsFailed("the router did not become ready")
