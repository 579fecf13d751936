"""Kill -9: a router process ends 200 times at random points under load, and no answer lacks its record."""

import asyncio
import hashlib
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass, field
from os import kill
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from router.records import unfinished, verify_records
from router.testing import completion, stream
from tests.support.killable_router import SEED

KILLS = 200
CLIENTS = 4


async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An engine that answers at once, one HTTP chunk for each event of a stream."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"post"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            body = orjson.loads(await reader.readexactly(length))
            if body.get("stream"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
                writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
                for event in stream(body, "hello"):
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
            else:
                data = orjson.dumps(completion(body, "hello"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


@dataclass
class Clients:
    port: int
    secret: str
    answered: dict[str, str | None] = field(default_factory=dict)
    """Record -> digest of the body; None for a stream. Only what came to its very end."""
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, number: int) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    while True:
                        await self._ask(reader, writer, streamed=number % 2 == 0)
                finally:
                    writer.close()
            except (OSError, asyncio.IncompleteReadError):
                continue

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, streamed: bool
    ) -> None:
        question = {"model": "assistant", "messages": [{"role": "user", "content": "pay"}]}
        body = orjson.dumps({**question, "stream": streamed})
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: router\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (self.secret.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        lines = [line.partition(b":") for line in head.lower().split(b"\r\n")[1:]]
        headers = {name.decode(): value.strip().decode() for name, _, value in lines}
        if "content-length" in headers:
            answer = await reader.readexactly(int(headers["content-length"]))
            digest = "sha256:" + hashlib.sha256(answer).hexdigest()
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
            digest = None
        if head.startswith(b"HTTP/1.1 200"):
            self.answered[headers["x-tenon-record"]] = digest
            self.progress.set()


class Forks:
    def __init__(self, process: Process) -> None:
        self._process = process

    async def start(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(b"start\n")
        return int(await self.line())

    async def line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()


@pytest.mark.slow
async def test_every_answer_of_a_killed_router_has_its_record(tmp_path: Path) -> None:
    chance = random.Random(47724)
    server = await asyncio.start_server(engine, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.killable_router", str(tmp_path), url, stdin=PIPE, stdout=PIPE
    )
    forks = Forks(process)
    port, secret = (await forks.line()).split()
    clients = Clients(int(port), secret)
    tasks = [asyncio.create_task(clients.run(number)) for number in range(CLIENTS)]
    try:
        for turn in range(KILLS):
            pid = await forks.start()
            if turn % 10:  # every tenth is killed while it starts
                clients.progress.clear()
                await clients.progress.wait()
            await asyncio.sleep(chance.uniform(0, 0.05))
            kill(pid, signal.SIGKILL)
            assert await forks.line() == "ended"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    pid = await forks.start()  # one more, so that what the last one left torn is set aside
    await _until_answering(clients)
    kill(pid, signal.SIGTERM)
    assert await forks.line() == "ended"
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()
    server.close()
    _check(tmp_path, clients)


async def test_what_a_killed_router_had_begun_is_told(tmp_path: Path) -> None:
    """A policy that wants intents, an engine that has not answered yet, and kill -9."""
    asked = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")  # unless it only looks whether anybody listens
            asked.set()
            await reader.read()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.killable_router", str(tmp_path), url, "--intents",
        stdin=PIPE, stdout=PIPE,
    )  # fmt: skip
    forks = Forks(process)
    port, secret = (await forks.line()).split()
    clients = Clients(int(port), secret)
    task = asyncio.create_task(clients.run(1))
    chain = tmp_path / "records" / "router-0" / "000000.jsonl"
    pid = await forks.start()
    try:
        async with asyncio.timeout(30):
            await asked.wait()
            while not (chain.is_file() and b'"intent"' in chain.read_bytes()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        kill(pid, signal.SIGKILL)
        assert await forks.line() == "ended"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        server.close()
    begun = [orjson.loads(line) for line in chain.read_bytes().splitlines()]
    found = unfinished(tmp_path / "records")
    assert {record.id for record in found} == {line["id"] for line in begun if line["event"] == "intent"}
    assert found
    assert {(record.tenant, record.engine) for record in found} == {("bank_a", "engine-0")}
    signer = Signer("router", SEED).public
    assert verify_records(tmp_path / "records", {signer.id: signer}, []) == []  # the chain itself is sound


async def _until_answering(clients: Clients) -> None:
    clients.progress.clear()
    task = asyncio.create_task(clients.run(1))
    await clients.progress.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _check(folder: Path, clients: Clients) -> None:
    signer = Signer("router", SEED).public
    heads = [Envelope.parse(line) for line in (folder / "heads.jsonl").read_bytes().splitlines()]
    assert verify_records(folder / "records", {signer.id: signer}, heads) == []
    outcomes: dict[str, dict[str, Any]] = {}
    for file in sorted((folder / "records" / "router-0").glob("*.jsonl")):
        for line in file.read_bytes().splitlines():
            record = orjson.loads(line)
            if record["event"] == "refused":  # before it knows the registry's state, and at its end
                assert record["code"] in {"router_not_ready", "router_draining"}
                continue
            assert record["event"] == "outcome"
            assert record["id"] not in outcomes, "two outcomes of one request"
            outcomes[record["id"]] = record
    missing = clients.answered.keys() - outcomes.keys()
    assert not missing
    for record, digest in clients.answered.items():
        assert outcomes[record]["status"] == 200
        assert digest is None or outcomes[record]["answer"] == digest
    streams = sum(digest is None for digest in clients.answered.values())
    assert min(streams, len(clients.answered) - streams) > KILLS, "this was no load"
    assert len(heads) > 1
