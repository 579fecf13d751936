"""`tenon up` on a real vLLM, of which one process after another stands still for twenty seconds (SIGSTOP): no
answer is lost or somebody else's, and nobody has to come."""

import asyncio
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.digests import Digest
from registry.fingerprint import Fingerprint
from router.records import Record, content_digest
from server.assembly import stack
from server.assembly.catalog import initialise, open_catalog
from server.assembly.processes import Running
from server.demo.build_base import SHIPPED_BASE
from server.engines.attest import judge_together, observe
from server.engines.client import VllmClient
from server.mixup import lora, ours, versions
from tests.engine.asking import LOUD, QUESTIONS, Answer, Asking, Known, Voice, ask, asking
from tests.engine.conftest import write_lora
from tests.engine.processes import processes, state_of, stopped
from tests.journeys.commands import tenon_here

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("agent"),
]
STILL = 20.0
"""Seconds: less than an agent waits for one answer, and than the control plane for its agent."""
TENANTS = ("bank_a", "retail_b")


@dataclass
class Up:
    """Two tenants, one vLLM."""

    stack: ours.Stack
    running: Running
    vllm: int
    """Its port."""
    voices: tuple[Voice, ...]
    known: Known = field(default_factory=dict)

    @property
    def agent(self) -> int:
        (process,) = self.running.engines
        return process.pid

    def agent_says(self) -> dict[str, Any]:
        (process,) = self.running.engines
        with urllib.request.urlopen(f"{process.url}/state", timeout=10) as answer:
            said: dict[str, Any] = json.load(answer)
        return said

    def boots(self) -> dict[Digest, set[str]]:
        """Of the slots that each tenant's version has."""
        catalog = self.stack.catalog
        live = [self.stack.live(tenant).version for tenant in TENANTS]
        return {version: {slot.boot for slot in catalog.slots(version)} for version in live}

    async def strengths(self) -> list[str]:
        """What this test finds when it attests everybody's slot itself."""
        live = [self.stack.live(tenant) for tenant in TENANTS]
        async with VllmClient(f"http://127.0.0.1:{self.vllm}") as client:
            seen = [
                await observe(
                    client,
                    version=each.version,
                    fingerprint=self.stack.fingerprint(each.folder),
                    files=self.stack.catalog.manifest(each.version).files,
                    salt=os.urandom(8).hex(),
                )
                for each in live
            ]
        return [found.strength for found in judge_together(seen, dtype="float32").values()]

    def push(self, tenant: str, *, seed: int) -> versions.Known:
        folder = write_lora(self.stack.folder / f"{tenant}-{seed}", seed=seed, size=LOUD)
        return self.stack.push(tenant, f"{tenant}/{seed}", folder)

    def outcomes(self) -> dict[str, Record]:
        files = sorted(self.stack.workspace.records.glob("*/*.jsonl"))
        records = [Record.parse(line) for file in files for line in file.read_bytes().splitlines()]
        return {record.id: record for record in records if record.event == "outcome"}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    root = tmp_path_factory.mktemp("still")
    workspace = initialise(root / "workspace")
    catalog = open_catalog(workspace)
    base, fingerprint = ours.registered(workspace, catalog, SHIPPED_BASE.resolve())
    known: dict[Path, Fingerprint] = {}

    def once(folder: Path) -> Fingerprint:
        if folder not in known:
            known[folder] = fingerprint(folder)
        return known[folder]

    made = ours.Stack(workspace, catalog, base, root, lora.Shapes.of(SHIPPED_BASE), once)
    keys = {tenant: ours.admitted(catalog, tenant).key for tenant in TENANTS}
    options = stack.EngineOptions(base=str(SHIPPED_BASE.resolve()), base_name=base.name, heartbeat=2)
    found = Up(made, Running(processes=()), 0, ())
    for seed, tenant in enumerate(TENANTS, start=1):
        made.promote(found.push(tenant, seed=seed), wait=False)
    ports = stack.Ports.free()  # just before they are taken: other workers start stacks, too
    running = stack.start(
        workspace, engine=options, ports=ports, tied=True, progress=lambda _role, _doing: None
    )
    try:
        url = running.url("router")
        found.voices = tuple(Voice(tenant, url, ours.MODEL, keys[tenant]) for tenant in TENANTS)
        found.running, found.vllm = running, ports.vllm
        yield found
    finally:
        stack.stop(workspace)


async def stands_still(pid: int) -> tuple[float, float]:
    """From when to when."""
    with stopped(pid):
        began = time.monotonic()
        await asyncio.sleep(STILL)
        assert state_of(pid) == "T"
        return began, time.monotonic()


async def answered_by(voice: Voice, new: versions.Known) -> None:
    """Until the router has heard of it, too."""
    async with httpx.AsyncClient() as client, asyncio.timeout(30):
        answer = Answer(voice.name, QUESTIONS[0])
        while (await ask(client, voice, answer)).version != new.version:
            answer = Answer(voice.name, QUESTIONS[0])


def within(answers: list[Answer], began: float, ended: float) -> set[str]:
    """Whose questions were asked and answered in that time."""
    return {answer.voice for answer in answers if began < answer.began and answer.ended < ended}


async def recovered(up: Up, clients: Asking, boot: str) -> None:
    """Everybody is answered, out of the boot of before, and all of it has its record."""
    await clients.go_on()
    assert await up.strengths() == ["exact"] * len(TENANTS)
    await clients.until(lambda: up.agent_says()["status"] == "ready")
    assert up.agent_says()["boot"] == boot
    assert up.boots() == {up.stack.live(tenant).version: {boot} for tenant in TENANTS}
    assert clients.failed == []
    kept = up.outcomes()
    for answer in clients.right:
        record = kept[answer.record]
        live = up.stack.live(answer.voice).version
        assert (record.tenant, record.version, answer.version) == (answer.voice, live, live)
        whole = Digest.of(answer.body)
        assert record.answer == (content_digest([answer.text]) if answer.streamed else whole)
    checked = tenon_here("log", "verify", "-w", str(up.stack.workspace.root))
    assert checked.code == 0, checked.err


@pytest.mark.parametrize("kind", ["VLLM::Worker", "VLLM::EngineCore", "server"])
async def test_a_process_of_vllm_that_stood_still_goes_on_where_it_was(up: Up, kind: str) -> None:
    boot = up.agent_says()["boot"]
    (pid,) = [pid for name, pid in processes(up.vllm).items() if name.startswith(kind)]
    async with asking(up.voices, up.known) as clients:
        await clients.in_the_middle()
        began, ended = await stands_still(pid)
        assert within(clients.right, began + 1, ended) == set(), "it does not stand still"
        await recovered(up, clients, boot)
        torn = [each for each in clients.right if each.streamed and each.began < began and each.ended > ended]
        assert {each.voice for each in torn} == set(TENANTS), "streams were to stand still in their midst"


async def test_nobody_notices_an_agent_that_stood_still_and_it_goes_on(up: Up) -> None:
    boot = up.agent_says()["boot"]
    async with asking(up.voices, up.known) as clients:
        (began, ended), new = await asyncio.gather(
            stands_still(up.agent), asyncio.to_thread(up.push, "bank_a", seed=3)
        )
        assert within(clients.right, began, ended) == set(TENANTS)
        await recovered(up, clients, boot)
    before = up.known.copy()
    up.known.clear()
    await asyncio.to_thread(up.stack.promote, new)  # waits for the agent, which loads and attests it
    await answered_by(up.voices[0], new)
    async with asking(up.voices, up.known) as clients:
        await recovered(up, clients, boot)
    moved = {key[0] for key in before if before[key].text != up.known[key].text}
    assert moved == {"bank_a"}
