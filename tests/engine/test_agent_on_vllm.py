"""The agent with a real vLLM below it: what dies comes back attested, and so does what is merged."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from registry.bases import describe
from registry.clock import SystemClock
from registry.digests import Digest
from registry.fingerprint import EXACT_F32
from registry.models import Isolation, Level
from registry.names import engine_name
from registry.signing.keys import Signer
from server.demo.build_base import SHIPPED_BASE
from server.engines.agent import Agent
from server.engines.cache import AdapterCache
from server.engines.cadence import Cadence
from server.engines.spec import EngineSpec
from server.engines.state import AgentState, Event
from server.settings import inherited_environment
from server.testing.control_plane import InMemoryControlPlane
from tests.engine.conftest import _free_port, write_lora
from tests.support import neighbours
from trainer.learning.contract import make_contract
from trainer.learning.fingerprint import make_fingerprint

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("agent"),
]
QUESTION = {"prompt": "Pay 120 EUR to Norvik Ltd.", "max_tokens": 12, "temperature": 0, "ignore_eos": True}


class Running:
    """An agent, its registry, and one tenant's version in it."""

    def __init__(self, folder: Path, **spec: Any) -> None:
        base = describe(SHIPPED_BASE, name="demo", revision="local")
        signer = self.signer = Signer("engine", b"e" * 32)
        self.folder, self.base = folder, base.identity()
        contract = make_contract(base.identity(), SHIPPED_BASE)
        self.control = InMemoryControlPlane(base=base, trust=signer.public, contract=contract)
        self.version = self.adapter("bank_a", seed=1)
        self.events: list[Event] = []
        self.spec = EngineSpec(
            engine="engine-0",
            model=str(SHIPPED_BASE.resolve()),
            base_name="demo",
            dtype="float32",
            device="cpu",
            port=_free_port(),
            max_loras=2,
            max_cpu_loras=4,
            **{"max_lora_rank": 8, **spec},
        )
        self.agent = Agent(
            spec=self.spec,
            describe=lambda: base,
            control=self.control,
            signer=signer,
            cache=AdapterCache(folder / "cache"),
            clock=SystemClock(),
            inherited=inherited_environment(),
            log=folder / "vllm.log",
            cadence=Cadence(backoff=(0.1, 1.0), heartbeat=1.0),
            report=self.events.append,
            guard=folder / "guard",
        )

    def adapter(self, tenant: str, *, seed: int, rank: int = 8) -> Digest:
        """A published version with an alias on it."""
        folder = write_lora(self.folder / tenant, seed=seed, rank=rank)
        fingerprint = make_fingerprint(self.base, SHIPPED_BASE, folder, [])
        version = self.control.publish(folder, tenant=tenant, fingerprint=fingerprint)
        self.control.point(version)
        return version

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._task = asyncio.create_task(self.agent.run())
        try:
            yield
        finally:
            self.agent.stop()
            await self._task

    async def until(self, holds: Callable[[AgentState], bool]) -> AgentState:
        async with asyncio.timeout(280):
            while not holds(self.agent.state):
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.05)
        return self.agent.state

    async def answer(self, session: aiohttp.ClientSession) -> str | None:
        """None for no answer."""
        body = {"model": engine_name(self.version), "cache_salt": os.urandom(8).hex(), **QUESTION}
        try:
            async with session.post(f"{self.spec.url}/v1/completions", json=body) as answer:
                found: dict[str, Any] = await answer.json()
                return str(found["choices"][0]["text"]) if answer.status == 200 else None
        except aiohttp.ClientError:
            return None


def processes(port: int) -> dict[str, int]:
    """vLLM's processes below the guardian of the engine on this port, by what they call themselves, and
    ``server``: the one that speaks HTTP, which keeps its command line."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat[1]), words
    roots = {pid for pid, (_, words) in parents.items() if f"--port {port} " in words}
    below = set(roots)
    while more := {pid for pid, (parent, _) in parents.items() if parent in below} - below:
        below |= more
    found = {parents[pid][1].split(" ")[0]: pid for pid in below if parents[pid][1].startswith("VLLM::")}
    (guardian,) = (pid for pid in roots if parents[pid][0] not in roots)
    (found["server"],) = (
        pid for pid in roots if parents[pid][0] == guardian
    )  # the others are forked from it
    return found


def command_line(port: int) -> str:
    """Of whatever was started for this port."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_bytes().replace(b"\0", b" ").decode())
    return "\n".join(words for words in found if f"--port {port} " in words)


async def test_whatever_process_of_vllm_is_killed_a_fresh_boot_is_attested(tmp_path: Path) -> None:
    bench = Running(tmp_path)
    async with bench.running(), aiohttp.ClientSession() as session:
        state = await bench.until(lambda state: bench.version in state.ready and state.is_ready)
        right = await bench.answer(session)
        assert right
        seen: set[str | None] = set()

        async def ask() -> None:
            while True:
                seen.add(await bench.answer(session))
                await asyncio.sleep(0.02)

        asking = asyncio.create_task(ask())
        kinds = sorted(processes(bench.spec.port))
        assert len(kinds) == 3, "the engine's core, its worker and the server"
        for kind in kinds:
            boot = state.boot
            os.kill(processes(bench.spec.port)[kind], signal.SIGKILL)
            await bench.until(lambda state, boot=boot: state.boot not in (None, boot))  # type: ignore[misc]
            state = await bench.until(lambda state: bench.version in state.ready and state.is_ready)
            assert bench.control.attestations[-1].boot == state.boot, kind
            assert bench.control.attestations[-1].passed
            assert await bench.answer(session) == right
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert seen <= {right, None}
    assert {found.boot for found in bench.control.attestations} == {
        announced.boot for announced in bench.control.announced
    }


async def test_a_version_merged_in_float32_attests_by_its_own_fingerprint(tmp_path: Path) -> None:
    bench = Running(tmp_path)
    async with bench.running(), aiohttp.ClientSession() as session:
        await bench.until(lambda state: bench.version in state.ready)
        right = await bench.answer(session)
        assert right
        bench.control.isolate("bank_a", Isolation(level=Level.MERGED, engines=("engine-0",)))
        await bench.until(
            lambda state: state.merged == bench.version and bench.version in state.ready and state.is_ready
        )
        found = bench.control.attestations[-1]
        assert (found.passed, found.strength) == (True, "exact")
        assert found.own_distance < EXACT_F32
        assert found.nearest.distance > 1000 * EXACT_F32
        announced = bench.control.announced[-1]
        assert (announced.boot, announced.merged, announced.guarded) == (found.boot, bench.version, True)
        assert await bench.answer(session) == right


async def test_vllm_has_slots_for_what_is_wanted_and_larger_ones_once_another_serves(tmp_path: Path) -> None:
    bench = Running(tmp_path, max_lora_rank=64)

    def slot_rank() -> int:
        (rank,) = set(re.findall(r"--max-lora-rank (\d+)", command_line(bench.spec.port)))
        return int(rank)

    async def neighbour() -> None:
        await neighbours.announce(bench.control, bench.signer, base=bench.base, rank=64)

    await neighbour()
    async with bench.running(), aiohttp.ClientSession() as session:
        first = await bench.until(lambda state: bench.version in state.ready)
        assert slot_rank() == 16
        right = await bench.answer(session)
        assert right
        large = bench.adapter("retail_b", seed=2, rank=24)
        waiting = await bench.until(lambda state: bool(state.waits_for))
        assert (waiting.boot, set(waiting.ready)) == (first.boot, {bench.version})
        await neighbours.attest(bench.control, bench.signer, bench.control.attestations[0])
        state = await bench.until(lambda state: set(state.ready) == {bench.version, large})
        assert state.boot != first.boot
        assert slot_rank() == 32
        assert await bench.answer(session) == right
        found = {each.version: each for each in bench.control.attestations if each.boot == state.boot}
        assert all(each.passed and each.strength == "exact" for each in found.values())
