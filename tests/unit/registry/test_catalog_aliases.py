import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.catalog.errors import NothingToRollBack, ReportInvalid, VersionUnfingerprinted
from registry.catalog.way_back import rungs
from registry.digests import Digest
from registry.errors import (
    AliasMoved,
    AliasNotFound,
    GateRefused,
    InvalidDocument,
    InvalidName,
    TenonError,
    VersionNotFound,
    VersionRevoked,
)
from registry.evidence import GatePolicy, Report, Rule, Verdict
from registry.log.entries import Entry
from registry.names import AdapterName
from registry.signing.envelope import Envelope
from registry.signing.types import REPORT
from tests.support.registries import GATE, NAME, World, signer

THEIRS = AdapterName("retail_b", "assistant")


def _live(world: World, alias: str = "live") -> tuple[Digest, int] | None:
    found = [state for state in world.catalog.snapshot().aliases if state.alias == alias]
    return (found[0].version, found[0].epoch) if found else None


def test_an_alias_moves_after_its_verdict_and_the_log_says_why(world: World) -> None:
    version = world.evaluated()
    verdict = world.catalog.promote(NAME, version, gate=GATE, actor="alice")
    assert verdict.passed
    assert _live(world) == (version, 1)
    entry = world.catalog.entries(world.catalog.snapshot().size - 1)[0]
    assert (entry.kind, entry.subject, entry.actor) == ("alias.moved", "bank_a/assistant:live", "alice")
    assert entry.body["verdict"] == verdict.identity()
    assert Verdict.build(entry.body["verdict_body"]) == verdict
    assert GatePolicy.build(entry.body["gate"]).identity() == verdict.policy
    assert verdict.reports == (world.catalog.reports(version)[0].identity(),)


@pytest.mark.parametrize(
    "gate",
    [GatePolicy(), GatePolicy(rules=(Rule(metric="accuracy", at_least=0.95),))],
    ids=["empty", "strict"],
)
def test_a_refused_gate_moves_nothing(world: World, gate: GatePolicy) -> None:
    before = world.promoted(seed=1)
    version, size = world.evaluated(seed=2), world.catalog.snapshot().size
    with pytest.raises(GateRefused) as refused:
        world.catalog.promote(NAME, version, gate=gate, actor="test")
    verdict = refused.value.facts["verdict"]
    assert isinstance(verdict, Verdict)
    assert not verdict.passed
    assert _live(world) == (before, 1)
    assert world.catalog.snapshot().size == size


def test_a_version_without_a_report_is_refused(world: World) -> None:
    with pytest.raises(GateRefused):
        world.catalog.promote(NAME, world.push(), gate=GATE, actor="test")
    assert _live(world) is None


def test_versions_that_are_never_promoted(world: World) -> None:
    foreign = world.evaluated(THEIRS)
    revoked = world.evaluated(seed=1)
    world.catalog.revoke(revoked, reason="x", actor="test")
    unfingerprinted = world.push(seed=2, fingerprinted=False)
    world.catalog.file_report(world.report(unfingerprinted), actor="test")
    for version, error in (
        (foreign, VersionNotFound),
        (Digest.of(b"nothing"), VersionNotFound),
        (revoked, VersionRevoked),
        (unfingerprinted, VersionUnfingerprinted),
    ):
        with pytest.raises(error):
            world.catalog.promote(NAME, version, gate=GATE, actor="test")
    with pytest.raises(InvalidName):
        world.catalog.promote(NAME, world.evaluated(), gate=GATE, alias="Live!", actor="test")
    assert world.catalog.snapshot().aliases == ()


def test_a_move_names_the_epoch_it_saw(world: World) -> None:
    first, second = world.evaluated(seed=1), world.evaluated(seed=2)
    with pytest.raises(AliasMoved):
        world.catalog.promote(NAME, first, gate=GATE, expect_epoch=1, actor="test")
    world.catalog.promote(NAME, first, gate=GATE, expect_epoch=0, actor="test")
    with pytest.raises(AliasMoved, match="epoch 1, not 0"):
        world.catalog.promote(NAME, second, gate=GATE, expect_epoch=0, actor="test")
    world.catalog.promote(NAME, second, gate=GATE, expect_epoch=1, actor="test")
    assert _live(world) == (second, 2)


def test_promoting_what_is_shown_already_changes_nothing(world: World) -> None:
    version, size = world.promoted(), world.catalog.snapshot().size
    assert world.catalog.promote(NAME, version, gate=GATE, expect_epoch=1, actor="test").passed
    assert world.catalog.snapshot().size == size


def test_two_threads_with_the_same_epoch_and_one_wins(world: World) -> None:
    world.promoted(seed=0)
    rivals = [world.evaluated(seed=seed) for seed in (1, 2, 3, 4)]
    start = threading.Barrier(len(rivals))
    outcomes: list[Digest | None] = []

    def promote(version: Digest) -> None:
        start.wait(10)
        try:
            world.catalog.promote(NAME, version, gate=GATE, expect_epoch=1, actor="test")
            outcomes.append(version)
        except AliasMoved:
            outcomes.append(None)

    threads = [threading.Thread(target=promote, args=(version,)) for version in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if outcome]
    assert _live(world) == (winner, 2)
    assert world.catalog.verify() == []


def test_rolling_back_walks_down_what_was_promoted(world: World) -> None:
    one, two, three = (world.promoted(seed=seed) for seed in (1, 2, 3))
    assert world.catalog.rollback(NAME, actor="alice").version == two
    assert world.catalog.rollback(NAME, actor="alice").version == one
    with pytest.raises(NothingToRollBack):
        world.catalog.rollback(NAME, actor="alice")
    assert _live(world) == (one, 5)
    four = world.promoted(seed=4)
    assert world.catalog.rollback(NAME, actor="alice").version == one
    moves = world.catalog.history(NAME)
    assert [(move.version, move.previous, move.cause, move.epoch) for move in moves] == [
        (one, None, "promotion", 1),
        (two, one, "promotion", 2),
        (three, two, "promotion", 3),
        (two, three, "rollback", 4),
        (one, two, "rollback", 5),
        (four, one, "promotion", 6),
        (one, four, "rollback", 7),
    ]
    assert moves[3].verdict == moves[1].verdict
    assert [move.actor for move in moves[2:4]] == ["test", "alice"]
    assert world.catalog.verify() == []


def test_rolling_back_skips_the_revoked(world: World) -> None:
    one, two, _ = (world.promoted(seed=seed) for seed in (1, 2, 3))
    world.catalog.revoke(two, reason="x", actor="test")
    assert world.catalog.rollback(NAME, actor="test").version == one


def test_rolling_back_from_a_revoked_version(world: World) -> None:
    one, two = (world.promoted(seed=seed) for seed in (1, 2))
    world.catalog.revoke(two, reason="x", actor="test")
    assert world.catalog.rollback(NAME, actor="test").version == one
    world.catalog.revoke(one, reason="x", actor="test")
    with pytest.raises(NothingToRollBack):
        world.catalog.rollback(NAME, actor="test")


def test_there_is_nothing_before_the_first(world: World) -> None:
    with pytest.raises(AliasNotFound):
        world.catalog.rollback(NAME, actor="test")
    version = world.promoted()
    with pytest.raises(NothingToRollBack):
        world.catalog.rollback(NAME, actor="test")
    assert _live(world) == (version, 1)
    assert world.catalog.history(NAME, "canary") == ()


def test_aliases_do_not_share_a_history(world: World) -> None:
    one, two = world.promoted(seed=1), world.evaluated(seed=2)
    world.catalog.promote(NAME, two, gate=GATE, alias="canary", actor="test")
    assert (_live(world), _live(world, "canary")) == ((one, 1), (two, 1))
    with pytest.raises(NothingToRollBack):
        world.catalog.rollback(NAME, alias="canary", actor="test")


def _signed(world: World, version: Digest, **changes: object) -> Envelope:
    report = Report.parse(world.report(version).body()).model_copy(update=changes)
    return signer("trainer").sign(REPORT, report.canonical())


def test_a_report_is_about_a_version_that_is_its_tenants(world: World) -> None:
    version = world.push()
    for envelope, error in (
        (world.report(version, name=THEIRS), VersionNotFound),
        (world.report(version, name=AdapterName("bank_a", "writer")), VersionNotFound),
        (world.report(Digest.of(b"nothing")), VersionNotFound),
        (_signed(world, version, base=Digest.of(b"x")), ReportInvalid),
        (signer("trainer").sign(REPORT, world.report(version).body() + b" "), ReportInvalid),
        (
            signer("trainer").sign(REPORT, world.report(version).body().replace(b"0.9", b"1e999")),
            InvalidDocument,
        ),
        (signer("trainer").sign(REPORT, b"{}"), TenonError),
    ):
        with pytest.raises(error):
            world.catalog.file_report(envelope, actor="test")
    assert world.catalog.reports(version) == ()


def test_a_report_is_filed_once(world: World) -> None:
    version = world.push()
    digest = world.catalog.file_report(world.report(version), actor="test")
    size = world.catalog.snapshot().size
    assert world.catalog.file_report(world.report(version), actor="test") == digest
    assert world.catalog.snapshot().size == size
    assert [report.identity() for report in world.catalog.reports(version)] == [digest]


@given(
    st.lists(st.tuples(st.sampled_from(["promotion", "rollback", "canary"]), st.integers(0, 3)), max_size=30)
)
def test_the_ladder_is_the_same_from_either_end(moves: list[tuple[str, int]]) -> None:
    """Read from its new end, as far as it is needed, it has the rungs that building it up would leave."""
    entries, standing = [], []
    for index, (cause, number) in enumerate(moves):
        version = Digest.of(b"%d" % number)
        alias = {"tenant": "a", "adapter": "b", "alias": "live", "version": version, "epoch": index + 1}
        body = {"alias": alias, "cause": cause, "verdict": "v", "verdict_body": {}, "gate": {}}
        entries.append(Entry(index=index, at="x", actor="x", kind="alias.moved", subject="x", body=body))
        if cause == "promotion":
            standing.append((version, index + 1))
        while cause == "rollback" and standing and standing[-1][0] != version:
            standing.pop()
    found = [(state.version, state.epoch) for state, _ in rungs(reversed(entries))]
    assert found == standing[::-1]
