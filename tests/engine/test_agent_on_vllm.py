"""The agent with a real vLLM below it: what dies comes back attested, and so does what is merged."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
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
from tests.engine.asking import LOUD, Voice, asking
from tests.engine.conftest import _free_port, write_lora
from tests.engine.processes import command_line, processes, state_of
from tests.support import neighbours
from trainer.learning.contract import make_contract
from trainer.learning.fingerprint import make_fingerprint

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("agent"),
]
QUESTION = {"prompt": "Pay 120 EUR to Norvik Ltd.", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
QUICK = Cadence(backoff=(0.1, 1.0), heartbeat=1.0)


class Running:
    """An agent, its registry, and one tenant's version in it."""

    def __init__(self, folder: Path, *, cadence: Cadence = QUICK, size: float = 0.02, **spec: Any) -> None:
        base = describe(SHIPPED_BASE, name="demo", revision="local")
        signer = self.signer = Signer("engine", b"e" * 32)
        self.folder, self.base = folder, base.identity()
        contract = make_contract(base.identity(), SHIPPED_BASE)
        self.control = InMemoryControlPlane(base=base, trust=signer.public, contract=contract)
        self.version = self.adapter("bank_a", seed=1, size=size)
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
            cadence=cadence,
            report=self.events.append,
            guard=folder / "guard",
        )

    def adapter(self, tenant: str, *, seed: int, rank: int = 8, size: float = 0.02) -> Digest:
        """A published version with an alias on it."""
        folder = write_lora(self.folder / tenant, seed=seed, rank=rank, size=size)
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


async def test_whatever_process_of_vllm_is_killed_or_hangs_a_fresh_boot_is_attested(tmp_path: Path) -> None:
    """What is stopped does not end, and all of vLLM waits for it; the agent does not. From outside, the core
    is as silent as its worker."""
    bench = Running(tmp_path, cadence=replace(QUICK, answer=2.0, misses=2), size=LOUD)
    wanted = {bench.version, bench.adapter("retail_b", seed=2, size=LOUD)}
    voices = [Voice(version.short, bench.spec.url, engine_name(version)) for version in sorted(wanted)]
    async with bench.running():
        state = await bench.until(lambda state: wanted == set(state.ready) and state.is_ready)
        kinds = sorted(processes(bench.spec.port))
        assert len(kinds) == 3, "the engine's core, its worker and the server"
        hanging = [kind for kind in kinds if "Core" not in kind]
        faults = [(kind, signal.SIGKILL) for kind in kinds] + [(kind, signal.SIGSTOP) for kind in hanging]
        async with asking(voices) as clients:
            for kind, fault in faults:
                boot, before = state.boot, processes(bench.spec.port)
                told = len(bench.events)
                await clients.in_the_middle()
                os.kill(before[kind], fault)
                await bench.until(lambda state, boot=boot: state.boot not in (None, boot))  # type: ignore[misc]
                # Its port was free again, or nothing would be up.
                assert [state_of(pid) for pid in before.values()] == [""] * 3, (kind, fault)
                hung = any("no longer answers" in event.text for event in bench.events[told:])
                assert hung or fault == signal.SIGKILL, bench.events[told:]
                state = await bench.until(lambda state: wanted == set(state.ready) and state.is_ready)
                found = {each.version: each for each in bench.control.attestations if each.boot == state.boot}
                assert set(found) == wanted
                assert all(each.passed and each.strength == "exact" for each in found.values())
                await clients.go_on()
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
