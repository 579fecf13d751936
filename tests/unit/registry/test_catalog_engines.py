import sqlite3
from typing import Any

import pytest

from registry.catalog.errors import (
    AnnouncementInvalid,
    AttestationInvalid,
    EngineDown,
    EngineHeld,
    EngineNeeded,
    EngineNotFound,
    EngineReplaced,
    RecordHeadInvalid,
    RecordHeadRegressed,
)
from registry.catalog.projection import ENGINE_ATTESTED, ENGINE_WITHDREW
from registry.digests import Digest
from registry.errors import BaseNotFound, LogCorrupt, SignatureInvalid, TenonError, VersionNotFound
from registry.fingerprint import Nearest
from registry.models import RecordHead, Slot, Withdrawal
from registry.names import AdapterName
from registry.shipping import genesis
from registry.signing import types
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from tests.support.registries import BOOT, World, attested, record_head, signer, withdrawn


def _ready(world: World) -> tuple[Digest, Digest]:
    """(a version, its attestation on engine-0)."""
    version = world.promoted()
    world.catalog.announce(world.engine(), actor="engine-0")
    return version, world.catalog.attest(world.attestation(version), actor="engine-0")


def test_an_attested_version_has_a_slot(world: World) -> None:
    version, digest = _ready(world)
    slot = Slot(engine="engine-0", boot=BOOT, version=version, attestation=digest)
    assert world.catalog.snapshot().slots == (slot,)
    size = world.catalog.snapshot().size
    assert world.catalog.attest(world.attestation(version), actor="engine-0") == digest
    assert world.catalog.snapshot().size == size
    again = world.finding(version).model_copy(update={"observed_at": "2026-01-01T00:01:00.000000Z"})
    newer = world.catalog.attest(attested(again), actor="engine-0")
    assert world.catalog.snapshot().slots == (slot.model_copy(update={"attestation": newer}),)


def test_an_unchanged_announcement_writes_nothing(world: World) -> None:
    _ready(world)
    before = world.catalog.snapshot()
    world.catalog.announce(world.engine(), actor="engine-0")
    assert world.catalog.snapshot() == before


def test_a_new_boot_voids_the_slots_of_the_old_one(world: World) -> None:
    version, _ = _ready(world)
    world.catalog.announce(world.engine(boot="boot-0002"), actor="engine-0")
    assert world.catalog.snapshot().slots == ()
    with pytest.raises(EngineReplaced):  # the old process, late
        world.catalog.attest(world.attestation(version), actor="engine-0")
    with pytest.raises(EngineReplaced):
        world.catalog.announce(world.engine(), actor="engine-0")
    world.catalog.attest(world.attestation(version, boot="boot-0002"), actor="engine-0")
    assert [slot.boot for slot in world.catalog.snapshot().slots] == ["boot-0002"]
    assert world.catalog.verify() == []


def test_an_engine_that_is_down_holds_nothing(world: World) -> None:
    version, _ = _ready(world)
    world.catalog.announce(world.engine(up=False), actor="engine-0")
    assert world.catalog.snapshot().slots == ()
    assert [engine.up for engine in world.catalog.snapshot().engines] == [False]
    with pytest.raises(EngineDown):  # nobody replaced it: it may announce itself again
        world.catalog.attest(world.attestation(version), actor="engine-0")
    gone = Withdrawal(engine="engine-0", boot=BOOT, versions=(version,))
    with pytest.raises(EngineDown):
        world.catalog.withdraw(withdrawn(gone), actor="engine-0")
    world.catalog.announce(world.engine(), actor="engine-0")
    assert world.catalog.snapshot().slots == ()  # up again, and not yet seen to hold anything


def test_other_engines_keep_their_slots(world: World) -> None:
    _ready(world)
    world.catalog.announce(world.engine("engine-1"), actor="engine-1")
    assert [slot.engine for slot in world.catalog.snapshot().slots] == ["engine-0"]


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"engine_version": "0.33"}, {"max_loras": 8}])
def test_a_process_does_not_become_another(world: World, change: dict[str, object]) -> None:
    _ready(world)
    with pytest.raises(EngineReplaced, match=next(iter(change))):
        world.catalog.announce(world.engine().model_copy(update=change), actor="engine-0")
    assert world.catalog.snapshot().slots


def test_an_engine_serves_a_known_base(world: World) -> None:
    with pytest.raises(BaseNotFound):
        world.catalog.announce(world.engine().model_copy(update={"base": Digest.of(b"x")}), actor="e")
    assert world.catalog.snapshot().engines == ()


def test_a_failed_attestation_is_logged_and_takes_the_slot(world: World) -> None:
    version, _ = _ready(world)
    size = world.catalog.snapshot().size
    world.catalog.attest(world.attestation(version, passed=False), actor="engine-0")
    snapshot = world.catalog.snapshot()
    assert (snapshot.size, snapshot.slots) == (size + 1, ())
    world.catalog.attest(world.attestation(world.promoted(seed=1), passed=False), actor="engine-0")
    assert world.catalog.snapshot().slots == ()
    assert world.catalog.verify() == []


def test_a_failed_finding_that_is_said_again_does_nothing(world: World) -> None:
    """Whoever kept it could end slots with it."""
    version, _ = _ready(world)
    other = world.finding(version, passed=False).model_copy(update={"reason": "another"})
    world.catalog.attest(world.attestation(version, passed=False), actor="engine-0")
    world.catalog.attest(attested(other), actor="engine-0")
    again = world.finding(version).model_copy(update={"observed_at": "2026-01-01T00:01:00.000000Z"})
    world.catalog.attest(attested(again), actor="engine-0")
    before = world.catalog.snapshot()
    assert len(before.slots) == 1
    world.catalog.attest(world.attestation(version, passed=False), actor="engine-0")
    world.catalog.attest(attested(other), actor="engine-0")
    assert world.catalog.snapshot() == before


def _failed(world: World) -> dict[tuple[str, Digest], str]:
    fleet = world.catalog.fleet()
    return {
        (each.state.engine, one.version): one.failed
        for each in fleet.engines
        for one in each.held
        if one.failed
    }


def test_the_fleet_says_what_the_newest_failed_look_of_a_boot_found(world: World) -> None:
    version, other = world.promoted(), world.promoted(AdapterName("retail_b", "ledger"), seed=1)
    for name in ("engine-0", "engine-1"):
        world.catalog.announce(world.engine(name), actor=name)
    assert _failed(world) == {}

    def fails(reason: str, boot: str = BOOT) -> None:
        found = world.finding(version, boot=boot, passed=False)
        world.catalog.attest(attested(found.model_copy(update={"reason": reason})), actor="engine-0")

    fails("far from its reference")
    fails("as far as the base\x1b[31m, " + 400 * "x")
    world.catalog.attest(world.attestation(other), actor="engine-0")
    (said,) = _failed(world).values()
    assert said.startswith("as far as the base [31m, xxx")
    assert len(said) == 300
    assert set(_failed(world)) == {("engine-0", version)}
    passed = world.finding(version).model_copy(update={"observed_at": "2026-01-01T00:01:00.000000Z"})
    world.catalog.attest(attested(passed), actor="engine-0")
    assert _failed(world) == {}, "it is attested"
    fails("a third time")
    world.catalog.announce(world.engine(boot="boot-0002"), actor="engine-0")
    assert _failed(world) == {}, "another boot was not looked at yet"
    fails("there, too", boot="boot-0002")
    assert _failed(world) == {("engine-0", version): "there, too"}
    world.catalog.announce(world.engine(boot="boot-0002", up=False), actor="engine-0")
    assert _failed(world) == {}
    assert world.catalog.verify() == []


def test_why_is_looked_up_and_not_searched_for(world: World) -> None:
    """By the index, however many attestations the log has."""
    text = "SELECT max(position) FROM entries WHERE kind = 'x' AND subject IN ('a', 'b') GROUP BY subject"
    with sqlite3.connect(world.folder / "registry.db") as database:
        steps = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}")]
    database.close()
    assert any("COVERING INDEX ix_entries_kind (kind=? AND subject=?)" in step for step in steps), steps


@pytest.mark.parametrize(
    "change",
    [
        {"base": Digest.of(b"x")},
        {"fingerprint": Digest.of(b"x")},
        {"contract": Digest.of(b"x")},
        {"dtype": "bfloat16"},
        {"engine_version": "0.33"},
        {"strength": "failed"},
        {"own_distance": 0.1},
        {"own_distance": -1.0},
        {"own_distance": 0.6},
        {"strength": "ratio", "own_distance": 0.3},
        {"strength": "ratio", "own_distance": 0.001},
        {"passed": False},
        {"nearest": Nearest(what="base", distance=1e-7)},
    ],
)
def test_an_attestation_that_does_not_add_up(world: World, change: dict[str, object]) -> None:
    version = world.promoted()
    world.catalog.announce(world.engine(), actor="engine-0")
    size = world.catalog.snapshot().size
    with pytest.raises(AttestationInvalid):
        world.catalog.attest(attested(world.finding(version).model_copy(update=change)), actor="engine-0")
    assert (world.catalog.snapshot().size, world.catalog.snapshot().slots) == (size, ())


def test_who_may_attest_what(world: World) -> None:
    version = world.promoted()
    with pytest.raises(EngineNotFound):
        world.catalog.attest(world.attestation(version), actor="engine-0")
    world.catalog.announce(world.engine(), actor="engine-0")
    payload = world.finding(version).canonical()
    for envelope in (
        signer("engine", 1).sign(types.ATTESTATION, payload),
        signer("router").sign(types.ATTESTATION, payload),
        signer("engine").sign(types.REPORT, payload),
    ):
        with pytest.raises(SignatureInvalid):
            world.catalog.attest(envelope, actor="engine-0")
    unknown = world.finding(version).model_copy(update={"version": Digest.of(b"x")})
    with pytest.raises(VersionNotFound):
        world.catalog.attest(attested(unknown), actor="engine-0")
    assert world.catalog.snapshot().slots == ()


def test_an_unfingerprinted_version_gets_no_slot(world: World) -> None:
    version, other = world.push(fingerprinted=False), world.promoted(seed=1)
    world.catalog.announce(world.engine(), actor="engine-0")
    finding = world.finding(other).model_copy(update={"version": version})
    with pytest.raises(AttestationInvalid, match="fingerprint"):
        world.catalog.attest(attested(finding), actor="engine-0")


def test_record_heads_only_go_forward(world: World) -> None:
    first, later = record_head(3), record_head(7, first=4)
    world.catalog.record_head(first, actor="router-0")
    world.catalog.record_head(later, actor="router-0")
    size = world.catalog.snapshot().size
    world.catalog.record_head(later, actor="router-0")
    assert world.catalog.snapshot().size == size
    fork = record_head(7, first=4, digest=Digest.of(b"fork"))
    for wrong in (record_head(3), record_head(6, first=4), fork):
        with pytest.raises(RecordHeadRegressed):
            world.catalog.record_head(wrong, actor="router-0")
    beyond = (
        record_head(20),  # a chain that begins anew
        record_head(20, first=8, chain="other"),
        record_head(20, first=5),
        record_head(20, first=12),
    )
    for wrong in beyond:
        with pytest.raises(RecordHeadRegressed, match="knows router-0 up to record 7"):
            world.catalog.record_head(wrong, actor="router-0")
    assert world.catalog.record_head_known("router-0").seq == 7
    other = record_head(0, writer="router-1")
    world.catalog.record_head(other, actor="router-1")
    assert world.catalog.record_heads() == (first, later, other)
    assert world.catalog.verify() == []


def test_a_head_that_names_nothing_before_it_is_refused(world: World) -> None:
    fields = RecordHead.parse(record_head(3).body()).model_dump() | {"after": None}
    old = signer("router").sign(types.RECORD_HEAD, RecordHead.build(fields).canonical())
    with pytest.raises(RecordHeadInvalid):
        world.catalog.record_head(old, actor="router-0")
    with pytest.raises(RecordHeadRegressed):  # nor does a chain begin in its middle
        world.catalog.record_head(record_head(9, first=4), actor="router-0")
    assert world.catalog.record_heads() == ()
    assert world.catalog.record_head_known("router-0").digest == genesis("router-0")


def test_only_routers_sign_record_heads(world: World) -> None:
    payload = record_head(1).body()
    for envelope in (
        signer("router", 1).sign(types.RECORD_HEAD, payload),
        signer("engine").sign(types.RECORD_HEAD, payload),
        signer("router").sign(types.RECEIPT, payload),
        signer("router").sign(types.RECORD_HEAD, b"{}"),
    ):
        with pytest.raises(TenonError):
            world.catalog.record_head(envelope, actor="x")
    assert world.catalog.record_heads() == ()


def _said(world: World, by: Signer | None = None, **changes: object) -> Envelope:
    """An announcement of engine-0 as ``by`` signs it."""
    own = by or signer("engine")
    state = world.engine().model_copy(update={"key": own.public.id, **changes})
    return own.sign(types.ANNOUNCEMENT, state.canonical())


def _trusted(world: World, *, seed: int = 1) -> Signer:
    other = signer("engine", seed)
    world.catalog.trust(other.public, actor="test")
    return other


def test_a_signed_announcement_stands_in_the_log_with_its_signature(world: World) -> None:
    said = _said(world)
    world.catalog.announce_signed(said, actor="engine-0")
    size = world.catalog.log_size()
    world.catalog.announce_signed(said, actor="engine-0")
    assert world.catalog.log_size() == size, "said again, it changes nothing"
    assert world.catalog.entries(size - 1)[0].body["envelope"] == said.model_dump(mode="json")
    version = world.promoted()
    world.catalog.attest(world.attestation(version), actor="engine-0")
    assert [slot.version for slot in world.catalog.slots()] == [version]
    assert world.catalog.verify() == []


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://10.6.6.6:1"},
        {"names": 1},
        {"max_rank": 8},
        {"guarded": True},
        {"merged": Digest.of(b"x")},
        {"max_loras": 8},
    ],
)
def test_nothing_but_being_up_changes_within_a_boot(world: World, change: dict[str, Any]) -> None:
    version = world.promoted()
    world.catalog.announce_signed(_said(world), actor="engine-0")
    world.catalog.attest(world.attestation(version), actor="engine-0")
    with pytest.raises(EngineReplaced, match=next(iter(change))):
        world.catalog.announce_signed(_said(world, **change), actor="engine-0")
    assert [slot.version for slot in world.catalog.slots()] == [version]


def test_nobody_else_speaks_for_an_engine_that_is_up(world: World) -> None:
    version, other = world.promoted(), _trusted(world)
    world.catalog.announce_signed(_said(world), actor="engine-0")
    world.catalog.attest(world.attestation(version), actor="engine-0")
    size = world.catalog.log_size()
    for envelope, why in (
        (_said(world, other, boot="boot-0002"), EngineHeld),
        (_said(world, other), EngineReplaced),
        (_said(world, other, up=False), EngineReplaced),
        (_said(world, signer("engine", 2), boot="boot-0002"), SignatureInvalid),  # trusted by nobody
        (_said(world, signer("router"), boot="boot-0002"), SignatureInvalid),
        (_said(world, other, key=signer("engine").public.id, boot="boot-0002"), SignatureInvalid),
        (_said(world, key=None, boot="boot-0002"), AnnouncementInvalid),
    ):
        with pytest.raises(why):
            world.catalog.announce_signed(envelope, actor="x")
    held = world.engine().model_copy(update={"key": signer("engine").public.id})
    for unsigned, why in (
        (held.model_copy(update={"boot": "boot-0002"}), AnnouncementInvalid),
        (world.engine(boot="boot-0002"), EngineHeld),
        (world.engine(), EngineReplaced),
    ):
        with pytest.raises(why):
            world.catalog.announce(unsigned, actor="x")
    assert world.catalog.log_size() == size
    assert [slot.version for slot in world.catalog.slots()] == [version]


def test_a_boot_is_attested_by_the_key_that_announced_it(world: World) -> None:
    version, other = world.promoted(), _trusted(world)
    world.catalog.announce_signed(_said(world), actor="engine-0")
    with pytest.raises(SignatureInvalid):
        world.catalog.attest(
            other.sign(types.ATTESTATION, world.finding(version).canonical()), actor="engine-0"
        )
    assert world.catalog.slots() == ()
    world.catalog.attest(world.attestation(version), actor="engine-0")
    assert [slot.version for slot in world.catalog.slots()] == [version]


def test_a_boot_withdraws_with_the_key_that_announced_it(world: World) -> None:
    version, other = world.promoted(), _trusted(world)
    for name, key in (("engine-0", signer("engine")), ("engine-1", other)):
        world.catalog.announce_signed(world.announced(name, by=key), actor=name)
        found = world.finding(version, engine=name)
        world.catalog.attest(key.sign(types.ATTESTATION, found.canonical()), actor=name)
    said = Withdrawal(engine="engine-0", boot=BOOT, versions=(version,))
    size = world.catalog.log_size()
    for envelope in (
        withdrawn(said, other),
        withdrawn(said, signer("engine", 2)),  # trusted by nobody
        withdrawn(said, signer("router")),
        signer("engine").sign(types.ANNOUNCEMENT, said.canonical()),
    ):
        with pytest.raises(SignatureInvalid):
            world.catalog.withdraw(envelope, actor="x")
    assert world.catalog.log_size() == size
    world.catalog.withdraw(withdrawn(said), actor="engine-0")
    assert [slot.engine for slot in world.catalog.slots()] == ["engine-1"]
    assert world.catalog.entries(size)[0].body["envelope"] == withdrawn(said).model_dump(mode="json")
    assert world.catalog.verify() == []


@pytest.mark.parametrize("later", [{"boot": "boot-0002"}, {"up": False}])
def test_nobody_leaves_for_a_slot_of_a_boot_that_is_gone(world: World, later: dict[str, Any]) -> None:
    """An announcement ends its engine's slots. Whoever writes the log can bring one back, and it counts for
    nothing."""
    version = world.promoted()
    for engine in ("engine-0", "engine-1"):
        world.catalog.announce(world.engine(engine), actor=engine)
        world.catalog.attest(world.attestation(version, engine=engine), actor=engine)
    world.catalog.announce(world.engine("engine-1", **later), actor="engine-1")
    again = world.attestation(version, engine="engine-1")
    with world.catalog._change_by("x") as change:
        change.write(ENGINE_ATTESTED, again.identity(), {"envelope": again.model_dump(mode="json")})
    said = withdrawn(Withdrawal(engine="engine-0", boot=BOOT, versions=(version,)))
    with pytest.raises(EngineNeeded):
        world.catalog.withdraw(said, actor="engine-0")
    assert {slot.engine for slot in world.catalog.slots()} == {"engine-0", "engine-1"}


def test_the_log_takes_no_more_away_than_an_engine_signed(world: World) -> None:
    """Whoever writes the log cannot add to what an agent withdrew: a replay refuses it."""
    one, two = world.promoted(), world.promoted(seed=1)
    world.catalog.announce_signed(_said(world), actor="engine-0")
    envelope = withdrawn(Withdrawal(engine="engine-0", boot=BOOT, versions=(one,)))
    more = Withdrawal(engine="engine-0", boot=BOOT, versions=tuple(sorted((one, two))))
    body = {"withdrawal": more.model_dump(mode="json"), "envelope": envelope.model_dump(mode="json")}
    with pytest.raises(LogCorrupt, match="more than its engine"), world.catalog._change_by("x") as change:
        change.write(ENGINE_WITHDREW, f"engine-0/{BOOT}", body)


@pytest.mark.parametrize("how", ["down", "silent", "distrusted"])
def test_a_name_is_free_again_when_its_engine_is_gone(world: World, how: str) -> None:
    other = _trusted(world)
    world.catalog.announce_signed(_said(world), actor="engine-0")
    if how == "down":
        world.catalog.announce_signed(_said(world, up=False), actor="engine-0")
    elif how == "silent":  # the control plane's own word
        world.catalog.announce(world.catalog.engines()[0].model_copy(update={"up": False}), actor="control")
    else:
        world.catalog.distrust(signer("engine").public.id, reason="lost", actor="test")
    world.catalog.announce_signed(_said(world, other, boot="boot-0002"), actor="engine-0")
    assert [(engine.boot, engine.key) for engine in world.catalog.engines()] == [
        ("boot-0002", other.public.id)
    ]
    assert world.catalog.verify() == []


def test_an_engine_announced_before_signatures_reads_as_it_was(world: World) -> None:
    assert b'"key"' not in world.engine().canonical()
    version, _ = _ready(world)
    world.catalog.announce(world.engine(up=False), actor="engine-0")
    world.catalog.announce_signed(_said(world, boot="boot-0002"), actor="engine-0")
    world.catalog.attest(world.attestation(version, boot="boot-0002"), actor="engine-0")
    assert [slot.boot for slot in world.catalog.slots()] == ["boot-0002"]
    assert world.catalog.verify() == []
