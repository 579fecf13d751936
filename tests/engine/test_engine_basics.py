"""What the agent relies on, on a real vLLM. The fake is checked against the same claims in tests/unit."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from registry.clock import SystemClock
from registry.digests import Digest
from registry.feed import State
from registry.fingerprint import EXACT_F32
from registry.models import EngineState
from registry.names import engine_name
from registry.signing.keys import Signer
from registry.signing.types import ANNOUNCEMENT
from server.engines.absent import Absent
from server.engines.attest import Witness, check_contract, judge_together, observe
from server.engines.boot import Boot
from server.engines.cache import AdapterCache
from server.engines.chances import Chances
from server.engines.client import VllmClient
from server.engines.errors import ContractMismatch, EngineLoadFailed
from server.engines.faults import Faults
from server.engines.residency import Capacity
from server.engines.spec import SERVED_NAME
from server.engines.suspects import Suspects
from server.engines.versions import refuse_unsafe
from server.testing.control_plane import InMemoryControlPlane
from tests.engine.conftest import RealAdapter, RealEngine, fresh, write_lora

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),  # the first test also waits for the engine's start
    pytest.mark.xdist_group("engine"),  # one worker, and so one engine, for all of them
]

HI = [{"role": "user", "content": "Pay 120 EUR to Norvik Ltd."}]


async def test_it_is_a_safe_version_and_serves_only_the_unnamed_base(engine: RealEngine) -> None:
    async with engine.client() as client:
        refuse_unsafe(await client.version())
        assert await client.health()
        assert SERVED_NAME in await client.models()


async def test_the_contract_of_training_holds_on_the_engine(engine: RealEngine) -> None:
    base = engine.base.identity()
    async with engine.client() as client:
        await check_contract(client, engine.contract, base=base, model=SERVED_NAME)
        first = engine.contract.golden[0]
        broken = first.model_copy(update={"token_ids": (*first.token_ids[:-1], first.token_ids[-1] + 1)})
        with pytest.raises(ContractMismatch):
            await check_contract(
                client, engine.contract.model_copy(update={"golden": (broken,)}), base=base, model=SERVED_NAME
            )


async def test_a_boot_loads_and_attests_real_adapters_exactly(
    engine: RealEngine, adapters: dict[str, RealAdapter], tmp_path: Path
) -> None:
    signer = Signer("engine", b"e" * 32)
    control = InMemoryControlPlane(base=engine.base, trust=signer.public, contract=engine.contract)
    versions = {
        name: control.publish(adapter.folder, tenant=name, fingerprint=adapter.fingerprint)
        for name, adapter in adapters.items()
    }
    for version in versions.values():
        control.point(version)
    salts = iter(range(1000))
    async with engine.client() as client:
        witness = Witness(
            "engine-0", "boot-of-the-suite", await client.version(), "float32", engine.base.identity()
        )
        announced = EngineState(
            engine=witness.engine,
            boot=witness.boot,
            url=engine.spec.url,
            base=witness.base,
            engine_version=witness.engine_version,
            dtype="float32",
            max_loras=4,
            names=16,
            max_rank=8,
            key=signer.public.id,
        )
        await control.announce("engine-0", signer.sign(ANNOUNCEMENT, announced.canonical()))
        boot = Boot(
            witness=witness,
            capacity=Capacity(names=16, rank=8),
            engine=client,
            control=control,
            signer=signer,
            cache=AdapterCache(tmp_path / "cache"),
            clock=SystemClock(),
            new_salt=lambda: f"probe-{next(salts)}",
            republish=3600,
            faults=Faults(
                pauses=(1.0, 60.0),
                tries=8,
                chances=Chances(pauses=(60.0, 3600.0), now=time.monotonic),
                suspects=Suspects(pause=60.0),
                report=lambda event: None,
            ),
            absent=Absent(900.0, time.monotonic),
            report=lambda event: None,
        )
        await boot.reconcile(State.of(control.snapshot()))
        assert boot.not_ready() == {}
        assert set(boot.ready()) == set(versions.values())
        assert {found.strength for found in control.attestations} == {"exact"}
        assert max(found.own_distance for found in control.attestations) < EXACT_F32
        assert min(found.nearest.distance for found in control.attestations) > 1000 * EXACT_F32
        await boot.attest()
        for version in versions.values():
            assert (await chat(client, engine, engine_name(version)))["model"] == engine_name(version)


async def test_another_adapter_under_the_name_fails_and_is_recognised(
    engine: RealEngine, adapters: dict[str, RealAdapter]
) -> None:
    first, second = adapters["first"], adapters["second"]
    wrong, right = fresh("wrong effect"), fresh("right beside it")
    async with engine.client() as client:
        await client.load(engine_name(wrong), second.folder)
        await client.load(engine_name(right), second.folder)
        found = await judged(client, [(wrong, first), (right, second)])
    assert not found[wrong].passed
    assert found[wrong].own_distance > 1000 * EXACT_F32
    assert found[right].passed


async def test_an_adapter_without_effect_fails_as_the_base(
    engine: RealEngine, adapters: dict[str, RealAdapter], tmp_path: Path
) -> None:
    version = fresh("zero effect")
    async with engine.client() as client:
        await client.load(engine_name(version), write_lora(tmp_path / "zero", seed=3, zero=True))
        found = await judged(client, [(version, adapters["first"])])
    assert not found[version].passed
    assert found[version].nearest.what == "base"
    assert found[version].nearest.distance < EXACT_F32


async def test_refused_loads_carry_the_status_and_the_engine_survives(
    engine: RealEngine, adapters: dict[str, RealAdapter], tmp_path: Path
) -> None:
    name = engine_name(fresh("loaded twice"))
    async with engine.client() as client:
        await client.load(name, adapters["first"].folder)
        with pytest.raises(EngineLoadFailed) as twice:
            await client.load(name, adapters["first"].folder)
        assert twice.value.facts["status"] == 400
        with pytest.raises(EngineLoadFailed) as missing:
            await client.load(engine_name(fresh("missing")), tmp_path / "nowhere")
        assert missing.value.facts["status"] == 404
        assert await client.health()


async def test_constrained_answers_come_from_the_adapter_that_was_asked(
    engine: RealEngine, adapters: dict[str, RealAdapter]
) -> None:
    name = engine_name(fresh("constrained"))
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}},
        "required": ["kind"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    async with engine.client() as client:
        await client.load(name, adapters["first"].folder)
        answer = await chat(client, engine, name, response_format=form, max_tokens=64)
    assert answer["model"] == name
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"] in ('{"kind":"a"}', '{"kind":"b"}')


async def test_the_dangers_that_the_fake_shows_are_real(
    engine: RealEngine, adapters: dict[str, RealAdapter]
) -> None:
    """D9 and D10: the base answers, 200, whatever the body said."""
    name = engine_name(fresh("dangers"))
    async with engine.client() as client:
        await client.load(name, adapters["first"].folder)
        assert (await chat(client, engine, None))["model"] == SERVED_NAME
        assert (await chat(client, engine, ""))["model"] == SERVED_NAME
        assert (await chat(client, engine, name, path="/invocations"))["model"] == SERVED_NAME
        header = {"X-Amzn-SageMaker-Adapter-Identifier": name}
        assert (await chat(client, engine, "nobody", path="/invocations", headers=header))["model"] == name


async def judged(client: VllmClient, slots: Sequence[tuple[Digest, RealAdapter]]) -> dict[Digest, Any]:
    """Findings over slots that should behave as the given adapters."""
    seen = [
        await observe(
            client,
            version=version,
            fingerprint=adapter.fingerprint,
            files=(),
            salt=f"salt of {version}",
        )
        for version, adapter in slots
    ]
    return dict(judge_together(seen, dtype="float32"))


async def chat(
    client: VllmClient,
    engine: RealEngine,
    model: str | None,
    *,
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    **body: Any,
) -> dict[str, Any]:
    """As a router would ask; the client of the agent has no generation of its own."""
    given = {"model": model, "messages": HI, "max_tokens": 4, "temperature": 0, **body}
    async with (
        aiohttp.ClientSession() as session,
        session.post(engine.spec.url + path, json=given, headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()
        decoded: dict[str, Any] = await answer.json()
        return decoded
