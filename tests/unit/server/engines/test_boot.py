"""One boot alone, with a fake vLLM in this process and nobody who starts a fresh one."""

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from registry.clock import ManualClock
from registry.digests import Digest
from registry.feed import State
from registry.models import EngineState
from registry.names import engine_name
from registry.signing.keys import Signer
from registry.signing.types import ANNOUNCEMENT
from server.engines.absent import Absent
from server.engines.attest import Witness
from server.engines.boot import Boot
from server.engines.cache import AdapterCache
from server.engines.chances import Chances
from server.engines.client import VllmClient
from server.engines.faults import Faults
from server.engines.residency import Capacity, Plan
from server.engines.state import Event
from server.engines.suspects import Suspects
from server.testing.control_plane import InMemoryControlPlane
from server.testing.fake_engine import FakeOptions
from server.testing.fake_model import fake_fingerprint, weights_of
from server.testing.fake_vllm import FakeServer
from tests.support.adapters import write_adapter
from tests.unit.server.engines.serving import BASE, serve

WITNESS = Witness("engine-0", "boot-0001", "0.32.0", "float32", BASE.identity())


class Alone:
    """A boot that is announced, its fake and its control plane."""

    def __init__(self, folder: Path, fake: FakeServer, client: VllmClient) -> None:
        self.folder = folder
        self.fake = fake
        self.signer = Signer("engine", b"e" * 32)
        self.control = InMemoryControlPlane(base=BASE, trust=self.signer.public)
        self.events: list[Event] = []
        salts = count()
        self.boot = Boot(
            witness=WITNESS,
            capacity=Capacity(names=8, rank=16),
            engine=client,
            control=self.control,
            signer=self.signer,
            cache=AdapterCache(folder / "cache"),
            clock=ManualClock(),
            new_salt=lambda: f"salt-{next(salts)}",
            republish=3600.0,
            report=self.events.append,
            faults=Faults(
                pauses=(1.0, 1.0),
                tries=1,
                chances=Chances(pauses=(1.0, 1.0), now=lambda: 0.0),
                suspects=Suspects(pause=1.0),
                report=self.events.append,
            ),
            absent=Absent(3600.0, lambda: 0.0),
        )

    async def announce(self, url: str) -> None:
        state = EngineState(
            engine=WITNESS.engine,
            boot=WITNESS.boot,
            url=url,
            base=WITNESS.base,
            engine_version=WITNESS.engine_version,
            dtype=WITNESS.dtype,
            max_loras=4,
            names=8,
            max_rank=16,
            key=self.signer.public.id,
        )
        await self.control.announce(state.engine, self.signer.sign(ANNOUNCEMENT, state.canonical()))

    def adapter(self, tenant: str, *, seed: int) -> Digest:
        """A published version with an alias on it."""
        folder = write_adapter(self.folder / tenant, BASE, seed=seed)
        version = self.control.publish(folder, tenant=tenant)
        self.control.point(version)
        return version

    async def act(self) -> Plan:
        return await self.boot.reconcile(State.of(self.control.snapshot()))

    async def look_at_all(self) -> set[str]:
        """A heartbeat with its whole round; the names that were asked."""
        before = len(self.fake.seen)
        await self.boot.attest()
        while await self.boot.look():
            pass
        return {str(body["model"]) for _, body in self.fake.seen[before:]}

    def did(self, *kinds: str) -> list[tuple[str, Digest | None]]:
        return [(event.kind, event.version) for event in self.events if event.kind in kinds]


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Alone]:
    async with serve(FakeOptions(mixes_base=False)) as (fake, url), VllmClient(url) as client:
        made = Alone(tmp_path, fake, client)
        await made.announce(url)
        yield made


async def test_beside_tenants_in_service_each_load_is_followed_by_a_look(alone: Alone) -> None:
    """A load that answers for another must be found before the next one is on its way."""
    first = {alone.adapter(f"tenant_{seed}", seed=seed) for seed in (1, 2)}
    await alone.act()
    kinds = [kind for kind, _ in alone.did("loading", "attested")]
    assert kinds == ["loading", "loading", "attested", "attested"], "with nobody in service, at once"
    later = {alone.adapter(f"tenant_{seed}", seed=seed) for seed in (3, 4, 5)}
    await alone.act()
    steps = alone.did("loading", "attested")[4:]
    assert [kind for kind, _ in steps] == ["loading", "attested"] * 3
    assert [version for _, version in steps[::2]] == [version for _, version in steps[1::2]]
    assert alone.control.slots == first | later == set(alone.boot.ready())


async def test_a_version_whose_base_vllm_fails_to_show_is_left_alone_for_a_while(alone: Alone) -> None:
    """Its prompts are a tenant's to choose: it blocks nobody in service."""
    good = alone.adapter("tenant_1", seed=1)
    await alone.act()
    alone.fake.engine.faults = replace(alone.fake.engine.faults, unusable_probe=True)
    folder = write_adapter(alone.folder / "tenant_2", BASE, seed=2)
    genuine = fake_fingerprint(BASE.identity(), weights_of(folder))
    rows = tuple(probe.model_copy(update={"token_ids": (*probe.token_ids, 1)}) for probe in genuine.probes)
    own = genuine.model_copy(update={"probes": rows})
    bad = alone.control.publish(folder, tenant="tenant_2", fingerprint=own)
    alone.control.point(bad)
    await alone.act()
    why = alone.boot.not_ready()[bad]
    assert ("500" in why.text, why.blocks, alone.boot.due is None) == (True, False, False)
    assert set(alone.boot.ready()) == {good}
    asked = len(alone.fake.seen)
    await alone.act()
    assert len(alone.fake.seen) == asked


async def test_after_a_load_that_failed_the_others_are_looked_at_in_their_share_of_time(alone: Alone) -> None:
    """It comes again each minute: looks that are owed at once would be a round for each try."""
    for seed in (1, 2):
        alone.adapter(f"tenant_{seed}", seed=seed)
    await alone.act()
    await alone.look_at_all()
    assert not alone.boot.looking
    alone.fake.engine.faults = replace(alone.fake.engine.faults, refuse_load=500)
    alone.adapter("tenant_3", seed=3)
    await alone.act()
    assert (alone.boot.owing, alone.boot.looking) == (False, True)


async def test_a_slot_that_answered_wrongly_once_is_never_trusted_again(alone: Alone) -> None:
    good, bad = (alone.adapter(f"tenant_{seed}", seed=seed) for seed in (1, 2))
    await alone.act()
    assert alone.control.slots == {good, bad}
    slots = alone.fake.engine._cache
    right = slots[engine_name(bad)]
    slots[engine_name(bad)] = weights_of(alone.folder / "tenant_1")
    await alone.look_at_all()
    assert alone.control.slots == {good}
    slots[engine_name(bad)] = right
    said = len(alone.control.attestations)
    for _ in range(2):
        alone.control.point(bad, alias="again")
        await alone.act()
        assert engine_name(bad) not in await alone.look_at_all()
        assert set(alone.boot.ready()) == {good} == alone.control.slots
        assert "attestation_failed" in alone.boot.not_ready()[bad].text
    assert all(found.version == good for found in alone.control.attestations[said:])


async def test_a_revoked_version_is_neither_asked_nor_attested_again(alone: Alone) -> None:
    good, revoked = (alone.adapter(f"tenant_{seed}", seed=seed) for seed in (1, 2))
    await alone.act()
    assert engine_name(revoked) in await alone.look_at_all()
    alone.control.revoke(revoked)
    said = len(alone.control.attestations)
    for _ in range(2):
        await alone.act()
        assert engine_name(revoked) not in await alone.look_at_all()
        assert set(alone.boot.ready()) == {good} == alone.control.slots
        assert alone.boot.retired() == ()
    assert all(found.version == good for found in alone.control.attestations[said:])
