from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.errors import PromotionNotReady
from registry.digests import Digest
from registry.errors import AliasMoved, GateRefused
from registry.evidence import GatePolicy
from registry.promotions import Protection, Readiness
from server.assembly.awaiting import Patience
from server.assembly.promoting import Move, approve, promote_or_propose
from server.cli.waiting import moved, sentence
from server.cli.waiting import patience as cli_patience
from tests.support.registries import GATE, NAME, World, attested, open_world
from tests.support.waiting import Waiting


def _move(version: Digest, *, gate: GatePolicy = GATE, percent: float = 100) -> Move:
    return Move(NAME, version, gate, "live", percent, None, None)


def _attest(world: World, version: Digest, engine: str) -> None:
    finding = world.finding(version).model_copy(update={"engine": engine})
    world.catalog.attest(attested(finding), actor=engine)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = open_world(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def busy(world: World) -> tuple[World, Digest, Digest]:
    """Two engines, what they serve, and what is to come."""
    old, new = world.promoted(seed=1), world.evaluated(seed=2)
    for engine in ("engine-0", "engine-1"):
        world.catalog.announce(world.engine(engine), actor=engine)
        _attest(world, old, engine)
    return world, old, new


def _promote(world: World, version: Digest, patience: Patience | None, **more: Any) -> Any:
    move = _move(version, **more)
    return promote_or_propose(world.catalog, move, release_key=None, patience=patience, actor="ann")


def test_the_alias_moves_when_the_last_engine_is_ready(busy: tuple[World, Digest, Digest]) -> None:
    world, old, new = busy
    waiting = Waiting()
    waiting.plan = {
        3: lambda: _attest(world, new, "engine-1"),
        7: lambda: _attest(world, new, "engine-0"),
    }
    shown: list[Digest] = []
    waiting.plan[5] = lambda: shown.append(world.catalog.alias(NAME).version)
    assert _promote(world, new, waiting.patience(60)).verdict.passed
    assert shown == [old]
    assert waiting.pauses == 7
    assert [(each.attested, each.wanted) for each in waiting.seen] == [(0, 2), (1, 2), (2, 2)]
    assert waiting.seen[1].waits_for == {"engine-0": False, "engine-1": True}
    state = world.catalog.alias(NAME)
    assert (state.version, state.epoch) == (new, 2)
    assert state.former is not None
    assert (state.former.version, state.former.epoch) == (old, 1)


def test_an_engine_that_never_gets_ready_moves_nothing(busy: tuple[World, Digest, Digest]) -> None:
    world, old, new = busy
    waiting = Waiting(plan={2: lambda: _attest(world, new, "engine-1")})
    with pytest.raises(PromotionNotReady, match=r"after 3 s 1 of 2 engines did not hold") as late:
        _promote(world, new, waiting.patience(3))
    assert late.value.facts == {"wanted": 2, "attested": 1}
    assert 3 <= waiting.now < 3.5
    assert (world.catalog.alias(NAME).version, world.catalog.alias(NAME).epoch) == (old, 1)
    found = world.catalog.readiness(NAME, new)
    assert found.prepared_until is not None
    assert found.prepared_until < "2026-01-01T00:00:14"  # by the registry's clock, and then it is over


def test_what_an_engine_found_wrong_is_told_to_whoever_may_know_engines(
    busy: tuple[World, Digest, Digest],
) -> None:
    world, _, new = busy

    def fails() -> None:
        found = world.finding(new, passed=False).model_copy(update={"reason": "it behaves as the base"})
        world.catalog.attest(attested(found), actor="engine-0")

    waiting = Waiting(plan={2: lambda: _attest(world, new, "engine-1"), 4: fails})
    with pytest.raises(PromotionNotReady) as late:
        _promote(world, new, waiting.patience(3))
    assert late.value.message.endswith(
        f"1 of 2 engines did not hold {new.short}; engine-0: attestation_failed: it behaves as the base"
    )
    assert "restart the engine" in late.value.advice
    assert waiting.seen[-1].failed == {"engine-0": "it behaves as the base"}
    tenant = world.catalog.readiness(NAME, new).anonymous()
    assert (tenant.failed, tenant.waits_for) == (None, None)
    assert (tenant.wanted, tenant.attested) == (2, 1)


def test_engines_that_are_down_are_waited_for(busy: tuple[World, Digest, Digest]) -> None:
    world, old, new = busy

    def up(*engines: str, boot: str) -> None:
        for engine in engines:
            world.catalog.announce(world.engine(engine, boot=boot), actor=engine)
            world.catalog.attest(attested(world.finding(new, engine=engine, boot=boot)), actor=engine)

    for engine in ("engine-0", "engine-1"):
        world.catalog.announce(world.engine(engine, up=False), actor=engine)
    with pytest.raises(PromotionNotReady, match="after 3 s no engine was up that could hold") as refused:
        _promote(world, new, Waiting().patience(3))
    assert "--no-wait" in refused.value.advice
    assert world.catalog.alias(NAME).version == old
    waiting = Waiting(plan={4: lambda: up("engine-0", "engine-1", boot="boot-0002")})
    _promote(world, new, waiting.patience(60))
    assert waiting.pauses == 4
    assert world.catalog.alias(NAME).version == new
    assert sentence(waiting.seen[0]) == "Waiting for engines: all 2 engines of its base are down"


def test_engines_for_its_rank_are_waited_for(world: World) -> None:
    new = world.evaluated(seed=2)  # of rank 4
    small = {"max_rank": 2}
    world.catalog.announce(world.engine().model_copy(update=small), actor="engine-0")
    waiting = Waiting()
    with pytest.raises(
        PromotionNotReady, match="after 3 s no engine was for adapters of the rank"
    ) as refused:
        _promote(world, new, waiting.patience(3))
    assert "TENON_MAX_LORA_RANK" in refused.value.advice
    assert sentence(waiting.seen[0]) == "No engine is for adapters of its rank"


def test_engines_that_start_afresh_for_its_rank_are_waited_for(world: World) -> None:
    new = world.evaluated(seed=2)  # of rank 4
    small = {"max_rank": 8, "slot_rank": 2}
    world.catalog.announce(world.engine().model_copy(update=small), actor="engine-0")
    waiting = Waiting()
    with pytest.raises(PromotionNotReady, match="after 3 s 1 of 1 engines did not hold") as refused:
        _promote(world, new, waiting.patience(3))
    assert "start another engine beside them" in refused.value.advice
    assert sentence(waiting.seen[0]) == (
        "0 of 1 engines hold it, waiting for engine-0, 1 would have to start afresh for its rank first"
    )
    world.catalog.announce(world.engine("engine-1").model_copy(update=small), actor="engine-1")
    waiting = Waiting()
    with pytest.raises(PromotionNotReady) as refused:
        _promote(world, new, waiting.patience(3))
    assert "start afresh for its rank" in refused.value.advice
    assert "--wait" in refused.value.advice
    assert sentence(waiting.seen[0]) == (
        "0 of 2 engines hold it, waiting for engine-0, engine-1, 2 start afresh for its rank first"
    )


@pytest.mark.parametrize(
    ("readiness", "says"),
    [
        ({"engines": 2, "wanted": 2, "attested": 2}, ""),
        ({"engines": 2, "wanted": 2, "attested": 1}, "nobody waited, and only 1 of 2 engines hold it"),
        ({"engines": 2, "wanted": 2, "attested": 0}, "no engine holds it (engines load it first)"),
        ({"engines": 0, "wanted": 0, "attested": 0, "down": 2}, "all engines of its base are down"),
        ({"engines": 0, "wanted": 0, "attested": 0}, "its base has no engine yet"),
        (
            {"engines": 1, "wanted": 0, "attested": 0, "because": "rank"},
            "no engine holds it (none is for adapters of its rank)",
        ),
        ({"engines": 1, "wanted": 0, "attested": 0, "restarts": True}, "own engine starts again with it"),
    ],
)
def test_who_moves_without_waiting_is_told_what_nobody_answers(
    readiness: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    moved(Readiness(version=Digest.of(b"x"), ready=True, **readiness))
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("Warning: ") == bool(says)
    assert ("adapter_not_ready" in said) == (bool(says) and not readiness["attested"])


def test_what_is_everywhere_already_waits_for_nothing(busy: tuple[World, Digest, Digest]) -> None:
    world, _, new = busy
    for engine in ("engine-0", "engine-1"):
        _attest(world, new, engine)
    waiting = Waiting()
    size = world.catalog.log_size()
    _promote(world, new, waiting.patience(3))
    assert (waiting.pauses, waiting.seen) == (0, [])
    assert world.catalog.log_size() == size + 1  # the move, and no preparation


def test_a_refusing_gate_is_not_waited_for(busy: tuple[World, Digest, Digest]) -> None:
    world, _, new = busy
    waiting = Waiting()
    size = world.catalog.log_size()
    with pytest.raises(GateRefused):
        _promote(world, new, waiting.patience(3), gate=GatePolicy())
    assert (waiting.pauses, world.catalog.log_size()) == (0, size)


def test_whoever_moves_the_alias_meanwhile_is_not_overtaken(busy: tuple[World, Digest, Digest]) -> None:
    world, _, new = busy
    third = world.evaluated(seed=3)

    def other() -> None:
        world.catalog.promote(NAME, third, gate=GATE, actor="bob")

    waiting = Waiting(plan={2: other})
    with pytest.raises(AliasMoved):
        _promote(world, new, waiting.patience(60))
    assert waiting.pauses == 2
    assert world.catalog.alias(NAME).version == third


def test_another_preparation_ends_the_wait(busy: tuple[World, Digest, Digest]) -> None:
    world, old, new = busy
    third = world.evaluated(seed=3)
    waiting = Waiting(plan={2: lambda: world.catalog.prepare(NAME, third, seconds=60, actor="bob")})
    with pytest.raises(PromotionNotReady):
        _promote(world, new, waiting.patience(60))
    assert (waiting.pauses, world.catalog.alias(NAME).version) == (2, old)


def test_without_patience_it_moves_at_once(busy: tuple[World, Digest, Digest]) -> None:
    world, _, new = busy
    _promote(world, new, None)
    assert world.catalog.alias(NAME).version == new


def test_only_the_approval_that_moves_the_alias_waits(busy: tuple[World, Digest, Digest]) -> None:
    world, old, new = busy
    world.catalog.protect(Protection(tenant="bank_a", alias="live", approvals=2), actor="root")
    waiting = Waiting()
    asked = _promote(world, new, waiting.patience(3)).proposal
    first = approve(world.catalog, asked, patience=waiting.patience(3), actor="bob")
    assert (first.state, waiting.pauses) == ("open", 0)
    with pytest.raises(PromotionNotReady):
        approve(world.catalog, asked, patience=waiting.patience(3), actor="cem")
    assert world.catalog.proposal(asked.id).approved_by == ("bob",)
    assert world.catalog.alias(NAME).version == old
    plan: dict[int, Callable[[], object]] = {
        4: lambda: _attest(world, new, "engine-0"),
        5: lambda: _attest(world, new, "engine-1"),
    }
    again = Waiting(plan=plan)
    assert approve(world.catalog, asked, patience=again.patience(3), actor="cem").state == "done"
    assert world.catalog.alias(NAME).version == new


def test_an_interrupted_wait_moves_nothing(
    busy: tuple[World, Digest, Digest], capsys: pytest.CaptureFixture[str]
) -> None:
    world, old, new = busy

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    def interrupted() -> None:
        with cli_patience(60, no_wait=False, quiet=False) as patient:
            assert patient is not None
            _promote(world, new, Patience(60, patient.shown, pause=stop))

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    said = capsys.readouterr().err
    assert "0 of 2 engines hold it, waiting for engine-0, engine-1" in said
    assert "Nothing has moved" in said
    assert world.catalog.alias(NAME).version == old
