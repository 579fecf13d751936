"""An agent with all its surroundings: a real child process (the fake vLLM), a control plane in memory."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from registry.clock import ManualClock
from registry.digests import Digest
from registry.models import Base
from registry.signing.keys import Signer
from server.engines.agent import Agent
from server.engines.cache import AdapterCache
from server.engines.cadence import Cadence
from server.engines.spec import EngineSpec
from server.engines.state import AgentState, Event
from server.testing.control_plane import InMemoryControlPlane
from server.testing.fake_model import signed_by, weights_of
from tests.support.adapters import tiny_base, write_adapter

BASE, _ = tiny_base()
QUICK = Cadence(
    heartbeat=0.1,
    poll=0.2,
    retry=0.02,
    start_limit=30,
    backoff=(0.02, 0.1),
    tries=5,
    misses=2,
    quiet=0.1,
    drain=5,
)
SLOW = Cadence(heartbeat=3600, poll=5, retry=0.02, start_limit=30, backoff=(0.02, 0.1), quiet=0.1, drain=5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Bench:
    """An agent, its control plane, and everything it said."""

    def __init__(self, tmp_path: Path, *, cadence: Cadence = SLOW, base: Base = BASE, **spec: Any) -> None:
        self.folder = tmp_path
        tmp_path.mkdir(exist_ok=True)
        signer = Signer("engine", b"e" * 32)
        self.control = InMemoryControlPlane(base=BASE, trust=signer.public)
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        faults, more = spec.pop("faults", "{}"), spec.pop("more", ())
        merge = spec.pop("merge", (sys.executable, "-m", "server.testing.fake_merge"))
        self.spec = EngineSpec(
            **{
                "engine": "engine-0",
                "model": str(tmp_path),
                "base_name": BASE.name,
                "dtype": "float32",
                "device": "cpu",
                "port": free_port(),
                "max_loras": 3,
                "program": (sys.executable, "-m", "server.testing.fake_vllm", "--fake-faults", faults, *more),
                **spec,
            }
        )
        self.cache = AdapterCache(tmp_path / "cache")
        self.clock = ManualClock()
        self.agent = Agent(
            spec=self.spec,
            describe=lambda: base,
            control=self.control,
            signer=signer,
            cache=self.cache,
            clock=self.clock,
            inherited={},
            log=tmp_path / "vllm.log",
            cadence=cadence,
            report=self._hear,
            merge=merge,
        )

    def adapter(self, name: str, *, seed: int, **options: Any) -> Digest:
        """A published version with an alias on it."""
        folder = write_adapter(self.folder / name, BASE, seed=seed, rank=options.pop("rank", 4))
        if (fill := options.pop("fill", None)) is not None:
            file = folder / "adapter_model.safetensors"
            whole = file.read_bytes()
            number = np.array([fill], dtype=np.float32).tobytes()
            file.write_bytes(whole[: -len(number)] + number)
        version = self.control.publish(folder, tenant=name, **options)
        self.control.point(version)
        return version

    def share(self, other: "Bench") -> None:
        """The same registry: both agents then run the same engine, unless their specs name two."""
        self.control = other.control
        self.agent._around = replace(self.agent._around, control=other.control)
        self.agent._following._control = other.control
        self.agent._merges._control = other.control

    def weights(self, name: str) -> Digest:
        return weights_of(self.folder / name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.agent.run())
        self._task = running
        try:
            yield
        finally:
            self.agent.stop()
            await asyncio.wait_for(running, 30)

    async def until(self, holds: Callable[[AgentState], bool]) -> AgentState:
        """Look at the state again whenever something may have happened; fail after a limit."""
        for _ in range(2000):
            if self._task.done():
                self._task.result()
            if holds(self.agent.state):
                return self.agent.state
            await asyncio.sleep(0.01)
        raise AssertionError(f"never came: {self.agent.state}")

    async def said(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> set[str]:
        url = self.spec.url + path
        given = {"messages": [{"role": "user", "content": "hi"}], **body}
        async with aiohttp.ClientSession() as session, session.post(url, json=given) as answer:
            assert answer.status == 200
            return signed_by((await answer.json())["choices"][0]["message"]["content"])

    async def fault(self, **faults: Any) -> None:
        url = self.spec.url + "/__fault"
        async with aiohttp.ClientSession() as session, session.post(url, json=faults) as answer:
            assert answer.status == 200

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def _hear(self, event: Event) -> None:
        self.events.append(event)


def cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def group_of(bench: Bench) -> list[int]:
    """Every process of this bench's engine: its port is in the command line."""
    port = f"--port {bench.spec.port} "
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and port in cmdline(int(entry.name))
    ]
