"""Adapters of large ranks: taken up to the registry's bound, placed where they fit, and missed out loud."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.catalog.errors import PromotionNotReady
from registry.digests import Digest
from registry.errors import AdapterRankTooHigh
from registry.feed import State
from registry.fleet import assigned
from registry.manifests import Provenance
from registry.models import Isolation, Level
from registry.promotions import Because
from tests.support.adapters import tiny_base, tiny_fingerprint, write_adapter
from tests.support.registries import GATE, NAME, World, attested, open_world

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = open_world(tmp_path, max_rank=128)
    yield made
    made.database.close()


def _pushed(world: World, rank: int) -> Digest:
    folder = write_adapter(world.folder / f"peft-{rank}", tiny_base()[0], rank=rank)
    version = world.catalog.push(
        NAME,
        folder,
        base=world.base,
        fingerprint=tiny_fingerprint(world.base),
        provenance=Provenance(method="upload"),
        actor="test",
    )
    world.catalog.file_report(world.report(version), actor="test")
    return version


def _engine(world: World, name: str, rank: int, *, up: bool = True) -> None:
    state = world.engine(name, up=up).model_copy(update={"max_rank": rank})
    world.catalog.announce(state, actor=name)


def _why(world: World) -> list[Because]:
    return [each.because for each in world.catalog.fleet().unplaced]


def test_a_large_adapter_goes_to_the_pool_for_its_rank(world: World) -> None:
    for name, rank in (("small-0", 16), ("small-1", 16), ("large-0", 128), ("large-1", 128)):
        _engine(world, name, rank)
    version = _pushed(world, 128)
    assert world.catalog.manifest(version).lora.rank == 128
    world.catalog.promote(NAME, version, gate=GATE, actor="test")
    shares = assigned(State.of(world.catalog.snapshot()), NOW)
    holders = {name for name, share in shares.items() if version in {each.version for each in share.versions}}
    assert holders == {"large-0", "large-1"}
    assert world.catalog.readiness(NAME, version).because is None
    assert _why(world) == []


def test_the_bound_itself_is_taken_and_one_more_is_not(world: World) -> None:
    _pushed(world, 128)
    with pytest.raises(AdapterRankTooHigh, match="rank 129, the highest allowed is 128") as refused:
        _pushed(world, 129)
    assert "TENON_MAX_ADAPTER_RANK" in refused.value.advice


def test_where_no_engine_is_for_its_rank_that_is_said(world: World) -> None:
    version = _pushed(world, 128)
    assert world.catalog.readiness(NAME, version).because == "none"
    _engine(world, "small-0", 16)
    found = world.catalog.readiness(NAME, version)
    assert (found.because, found.ready, found.engines) == ("rank", False, 1)
    with pytest.raises(PromotionNotReady, match="no engine is for adapters of the rank") as refused:
        world.catalog.promote(NAME, version, gate=GATE, require_ready=True, actor="test")
    assert "TENON_MAX_LORA_RANK" in refused.value.advice
    assert set(refused.value.facts) == {"wanted", "attested"}
    world.catalog.promote(NAME, version, gate=GATE, actor="test")
    assert _why(world) == ["rank"]
    _engine(world, "large-0", 128, up=False)
    assert _why(world) == ["down"], "one that would take it is known"
    _engine(world, "large-0", 128)
    assert _why(world) == []
    _engine(world, "small-0", 16, up=False)
    assert _why(world) == []


def test_an_engine_of_another_tenant_is_no_engine_for_its_rank(world: World) -> None:
    version = _pushed(world, 128)
    world.catalog.promote(NAME, version, gate=GATE, actor="test")
    _engine(world, "small-0", 16)
    _engine(world, "large-0", 128)
    isolation = Isolation(level=Level.DEDICATED, engines=("large-0",))
    world.catalog.isolate_tenant("retail_b", isolation, force=True, actor="test")
    assert _why(world) == ["rank"]


def test_merged_into_the_weights_any_rank_fits(world: World) -> None:
    version = _pushed(world, 128)
    world.catalog.promote(NAME, version, gate=GATE, actor="test")
    _engine(world, "small-0", 16)
    isolation = Isolation(level=Level.MERGED, engines=("small-0",))
    world.catalog.isolate_tenant("bank_a", isolation, force=True, actor="test")
    assert "rank" not in _why(world)
    merged = world.engine("small-0", boot="boot-0002").model_copy(update={"max_rank": 16, "merged": version})
    world.catalog.announce(merged, actor="small-0")
    world.catalog.attest(
        attested(world.finding(version, engine="small-0", boot="boot-0002")), actor="small-0"
    )
    assert _why(world) == []


def test_what_nobody_may_be_answered_by_is_missed_by_nobody(world: World) -> None:
    version = _pushed(world, 128)
    _engine(world, "small-0", 16)
    world.catalog.revoke(version, reason="test", actor="test")
    assert world.catalog.readiness(NAME, version).because is None
