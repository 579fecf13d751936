"""Engines with the guard inside, and versions for them: for tests and for the benchmark."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from registry.bases import describe
from registry.canonical import decode
from registry.digests import Digest
from registry.names import engine_name
from server.demo.build_base import SHIPPED_BASE
from server.engines import guarded
from server.engines.client import VllmClient
from server.engines.command import GUARD, command
from server.engines.process import EngineProcess
from server.engines.spec import EngineSpec
from tests.support.node_cache import version_in

PROMPT = list(range(40, 72))


@dataclass(frozen=True, slots=True)
class Guarded:
    spec: EngineSpec
    process: EngineProcess
    reports: Path
    cache: Path

    def client(self) -> VllmClient:
        return VllmClient(self.spec.url)

    def alive(self) -> bool:
        return self.process.running


@contextmanager
def started(
    home: Path,
    *,
    guard: bool = True,
    controls: Sequence[str] = (),
    slots: int = 2,
    names: int = 2,
    audit_every: int = 8,
    cores: str | None = None,
) -> Iterator[Guarded]:
    base = describe(SHIPPED_BASE.resolve(), name="demo", revision="local")
    spec = EngineSpec(
        engine="engine-0",
        model=str(SHIPPED_BASE.resolve()),
        base_name=base.name,
        dtype="float32",
        device="cpu",
        port=_free_port(),
        max_loras=slots,
        max_lora_rank=8,
        max_cpu_loras=names,
        cpu_cores=cores,
    )
    cache, reports = home / "cache", home / "reports"
    cache.mkdir(exist_ok=True)
    argv, environment = command(spec, {"PATH": os.environ["PATH"], "HOME": str(home)})
    if guard:
        told = guarded.prepare(reports, cache=cache, isolate_base=True, audit_every=audit_every)
        environment["TENON_GUARD"] = str(told)
    plugins = [*([GUARD] if guard else []), *controls]
    environment["VLLM_PLUGINS"] = ",".join(plugins)
    process = EngineProcess(argv=argv, environment=environment, log=home / "vllm.log")
    process.start()
    engine = Guarded(spec, process, reports, cache)
    try:
        asyncio.run(_ready(engine))
        yield engine
    finally:
        asyncio.run(process.stop())


def version(cache: Path, files: Path, *, adapter: str) -> Digest:
    return version_in(cache, {path.name: path.read_bytes() for path in files.iterdir()}, adapter=adapter)


async def load(client: VllmClient, cache: Path, digest: Digest) -> None:
    await client.load(engine_name(digest), cache / digest.hex)


async def tokens(engine: Guarded, model: str, *, count: int, salt: str) -> AsyncIterator[str]:
    """The answer's tokens as they come; ends without a word when the engine breaks off."""
    body = {
        "model": model,
        "prompt": PROMPT,
        "max_tokens": count,
        "min_tokens": count,
        "temperature": 0,
        "logprobs": 0,
        "return_tokens_as_token_ids": True,
        "stream": True,
        "cache_salt": salt,
    }
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{engine.spec.url}/v1/completions", json=body) as answer,
        ):
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                event = decode(line.removeprefix(b"data: "))
                if "error" in event:
                    return
                for choice in event["choices"]:
                    for token in choice["logprobs"]["tokens"]:
                        yield token
    except aiohttp.ClientError:
        return


async def answer(engine: Guarded, model: str, *, count: int, salt: str) -> list[str]:
    return [token async for token in tokens(engine, model, count=count, salt=salt)]


async def ended(engine: Guarded, *, limit: float = 60.0) -> None:
    async with asyncio.timeout(limit):
        await engine.process.wait()


async def _ready(engine: Guarded) -> None:
    async with engine.client() as client:
        await engine.process.wait_ready(client.answers, limit=400)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
