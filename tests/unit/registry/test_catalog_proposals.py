from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.catalog.errors import (
    ApprovalRefused,
    ApprovalRequired,
    ApprovalUnneeded,
    ProposalClosed,
    ProposalNotFound,
    ProtectionWeakened,
    ReleaseSignatureRequired,
)
from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import (
    AliasMoved,
    AliasNotFound,
    GateRefused,
    InvalidInput,
    SignatureInvalid,
    TenantNotFound,
    VersionNotFound,
)
from registry.evidence import GatePolicy, Rule
from registry.models import Policy, Role, Route
from registry.names import AdapterName
from registry.promotions import Proposal, Protection, Release
from registry.routing.errors import RouteRefused
from registry.routing.proof import Flaw
from registry.signing.envelope import Envelope
from registry.signing.keys import SignerRole
from registry.signing.types import MANIFEST, RELEASE
from tests.support.registries import GATE, NAME, World, open_world, signer

FOUR_EYES = Protection(tenant="bank_a", alias="live", approvals=1)
SIGNED = Protection(tenant="bank_a", alias="live", release_signature=True)


@pytest.fixture
def protected(anywhere: World) -> World:
    anywhere.catalog.protect(FOUR_EYES, actor="cli")
    return anywhere


@pytest.fixture
def signed(world: World) -> World:
    world.catalog.protect(SIGNED, actor="cli")
    return world


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[tuple[World, ManualClock]]:
    clock = ManualClock()
    made = open_world(tmp_path, clock=clock)
    made.catalog.protect(FOUR_EYES, actor="cli")
    yield made, clock
    made.database.close()


def _propose(world: World, version: Digest, *, actor: str = "alice", percent: float = 100) -> Proposal:
    return world.catalog.propose(NAME, version, gate=GATE, percent=percent, actor=actor)


def _key(world: World, *, issuer: str = "cli", tenant: str | None = "bank_a") -> str:
    role = Role.TENANT_ADMIN if tenant else Role.PLATFORM_ADMIN
    return world.catalog.issue_key(tenant, role=role, actor=issuer)[0].id


def _points(world: World) -> Digest | None:
    try:
        return world.catalog.alias(NAME).version
    except AliasNotFound:
        return None


def test_one_proposes_and_another_approves(protected: World) -> None:
    version = protected.evaluated()
    with pytest.raises(ApprovalRequired):
        protected.catalog.promote(NAME, version, gate=GATE, actor="alice")
    proposal = _propose(protected, version)
    assert (proposal.state, proposal.epoch, proposal.proposed_by) == ("open", 0, "alice")
    assert _propose(protected, version) == proposal
    assert _points(protected) is None
    with pytest.raises(ApprovalRefused):
        protected.catalog.approve(proposal.id, actor="alice")
    size = protected.catalog.snapshot().size
    done = protected.catalog.approve(proposal.id, actor="bob")
    assert (done.state, done.approved_by) == ("done", ("bob",))
    assert _points(protected) == version
    # Approval and move are one transaction: two entries under one head.
    kinds = [entry.kind for entry in protected.catalog.entries(size)]
    assert kinds == ["promotion.approved", "alias.moved"]
    with protected.database.read() as rows:
        assert [count for count, _ in rows.log.head_texts()][-2:] == [size, size + 2]
    assert protected.catalog.history(NAME)[0].proposal == proposal.id
    with pytest.raises(ProposalClosed, match="carried out"):
        protected.catalog.approve(proposal.id, actor="carol")
    assert protected.catalog.proposals("bank_a") == (done,)
    assert protected.catalog.proposals("retail_b") == ()
    assert protected.catalog.verify() == []


def test_each_approval_counts_once(protected: World) -> None:
    protected.catalog.protect(FOUR_EYES.model_copy(update={"approvals": 2}), actor="cli")
    version = protected.evaluated()
    proposal = _propose(protected, version)
    assert protected.catalog.approve(proposal.id, actor="bob").state == "open"
    with pytest.raises(ApprovalRefused):
        protected.catalog.approve(proposal.id, actor="bob")
    assert _points(protected) is None
    assert protected.catalog.approve(proposal.id, actor="carol").state == "done"
    assert _points(protected) == version


def test_a_rotated_key_is_the_same_person(protected: World) -> None:
    first = _key(protected)
    proposal = _propose(protected, protected.evaluated(), actor=f"key:{first}")
    second, _ = protected.catalog.rotate_key(first, overlap_seconds=60, actor=f"key:{first}")
    third, _ = protected.catalog.rotate_key(second.id, overlap_seconds=60, actor="cli")
    for key in (first, second.id, third.id):
        with pytest.raises(ApprovalRefused):
            protected.catalog.approve(proposal.id, actor=f"key:{key}")
    other = _key(protected)
    assert protected.catalog.approve(proposal.id, actor=f"key:{other}").state == "done"


Pair = Callable[[World], tuple[str, str]]


def _issued_by_the_other(world: World) -> tuple[str, str]:
    mine = _key(world)
    return mine, _key(world, issuer=f"key:{mine}")


def _issued_by_the_same_admin(world: World) -> tuple[str, str]:
    admin = _key(world)
    return _key(world, issuer=f"key:{admin}"), _key(world, issuer=f"key:{admin}")


def _issued_by_a_rotated_admin(world: World) -> tuple[str, str]:
    admin = _key(world)
    again, _ = world.catalog.rotate_key(admin, overlap_seconds=60, actor="cli")
    return _key(world, issuer=f"key:{admin}"), _key(world, issuer=f"key:{again.id}")


def _rotated_by_the_other(world: World) -> tuple[str, str]:
    """Whoever rotates a key is shown the new secret."""
    mine, theirs = _key(world), _key(world)
    taken, _ = world.catalog.rotate_key(theirs, overlap_seconds=0, actor=f"key:{mine}")
    return mine, taken.id


def _unknown(world: World) -> tuple[str, str]:
    return _key(world), "0" * 16


@pytest.mark.parametrize(
    "pair",
    [
        _issued_by_the_other,
        _issued_by_the_same_admin,
        _issued_by_a_rotated_admin,
        _rotated_by_the_other,
        _unknown,
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_two_keys_are_not_always_two_people(world: World, pair: Pair, turned: bool) -> None:
    world.catalog.protect(FOUR_EYES, actor="cli")
    one, other = pair(world)
    if turned:
        one, other = other, one
    proposal = _propose(world, world.evaluated(), actor=f"key:{one}")
    with pytest.raises(ApprovalRefused):
        world.catalog.approve(proposal.id, actor=f"key:{other}")
    assert _points(world) is None


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("issuer", ["platform", "oidc:idp.example/alice"])
def test_whoever_issued_a_key_has_no_second_voice(world: World, issuer: str, turned: bool) -> None:
    world.catalog.protect(FOUR_EYES, actor="cli")
    admin = f"key:{_key(world, tenant=None)}" if issuer == "platform" else issuer
    pair = [admin, f"key:{_key(world, issuer=admin)}"]
    if turned:
        pair.reverse()
    proposal = _propose(world, world.evaluated(), actor=pair[0])
    with pytest.raises(ApprovalRefused):
        world.catalog.approve(proposal.id, actor=pair[1])
    assert world.catalog.approve(proposal.id, actor="oidc:idp.example/bob").state == "done"


def test_keys_that_the_platform_issued_to_two_people_are_two(world: World) -> None:
    world.catalog.protect(FOUR_EYES, actor="cli")
    platform = _key(world, tenant=None)
    one, other = (_key(world, issuer=f"key:{platform}") for _ in range(2))
    proposal = _propose(world, world.evaluated(), actor=f"key:{one}")
    assert world.catalog.approve(proposal.id, actor=f"key:{other}").state == "done"


def test_a_move_in_between_voids_the_proposal(protected: World) -> None:
    one, two = protected.evaluated(seed=1), protected.evaluated(seed=2)
    first, second = _propose(protected, one), _propose(protected, two, actor="bob")
    protected.catalog.approve(first.id, actor="bob")
    assert protected.catalog.proposal(second.id).state == "void"
    with pytest.raises(ProposalClosed, match="void"):
        protected.catalog.approve(second.id, actor="alice")
    assert _points(protected) == one
    third = _propose(protected, two, percent=5)
    protected.catalog.shadow(NAME, [two], actor="carol")
    assert protected.catalog.proposal(third.id).state == "void"
    assert protected.catalog.verify() == []


def test_a_revocation_voids_the_proposal(protected: World) -> None:
    version = protected.evaluated()
    proposal = _propose(protected, version)
    protected.catalog.revoke(version, reason="poisoned", actor="carol")
    assert protected.catalog.proposal(proposal.id).state == "void"
    assert protected.catalog.verify() == []


def test_a_canary_needs_approval_too(protected: World) -> None:
    stable, fresh = protected.evaluated(seed=1), protected.evaluated(seed=2)
    protected.catalog.approve(_propose(protected, stable).id, actor="bob")
    with pytest.raises(ApprovalRequired):
        protected.catalog.promote(NAME, fresh, gate=GATE, percent=5, actor="alice")
    proposal = _propose(protected, fresh, percent=5)
    assert protected.catalog.alias(NAME).canaries == ()
    protected.catalog.approve(proposal.id, actor="bob")
    (canary,) = protected.catalog.alias(NAME).canaries
    assert (canary.version, canary.percent) == (fresh, 5)
    # Going back is for whoever sees the trouble first.
    assert protected.catalog.rollback(NAME, actor="alice").canaries == ()


def test_the_gate_is_asked_again(protected: World) -> None:
    version = protected.evaluated()
    proposal = _propose(protected, version)
    protected.catalog.file_report(protected.report(version, accuracy=0.1), actor="test")
    size = protected.catalog.snapshot().size
    with pytest.raises(GateRefused):
        protected.catalog.approve(proposal.id, actor="bob")
    assert protected.catalog.snapshot().size == size
    assert protected.catalog.proposal(proposal.id) == proposal
    assert _points(protected) is None


def test_what_cannot_be_promoted_cannot_be_proposed(protected: World) -> None:
    unmeasured, foreign = protected.push(seed=1), AdapterName("retail_b", "assistant")
    good = protected.evaluated(seed=2)
    for gate in (GatePolicy(), GATE):
        with pytest.raises(GateRefused):
            protected.catalog.propose(NAME, unmeasured, gate=gate, actor="alice")
    with pytest.raises(VersionNotFound):
        protected.catalog.propose(foreign, good, gate=GATE, actor="alice")
    with pytest.raises(AliasMoved):
        protected.catalog.propose(NAME, good, gate=GATE, expect_epoch=3, actor="alice")
    with pytest.raises(ApprovalUnneeded):
        protected.catalog.propose(NAME, good, gate=GATE, alias="staging", actor="alice")
    assert protected.catalog.proposals("bank_a") == ()


def test_rejection(protected: World) -> None:
    version = protected.evaluated()
    proposal = _propose(protected, version)
    with pytest.raises(InvalidInput):
        protected.catalog.reject(proposal.id, reason="", actor="bob")
    rejected = protected.catalog.reject(proposal.id, reason="not on a Friday", actor="bob")
    assert rejected.state == "rejected"
    with pytest.raises(ProposalClosed, match="rejected"):
        protected.catalog.approve(proposal.id, actor="carol")
    with pytest.raises(ProposalClosed, match="rejected"):
        protected.catalog.reject(proposal.id, reason="x", actor="bob")
    with pytest.raises(ProposalNotFound):
        protected.catalog.approve("nothing", actor="bob")
    with pytest.raises(ProposalNotFound):
        protected.catalog.proposal("nothing")
    second = _propose(protected, version)
    assert second.id != proposal.id
    assert protected.catalog.proposals("bank_a", after=proposal.id) == (second,)
    assert protected.catalog.proposals("bank_a", limit=1) == (rejected,)
    assert protected.catalog.verify() == []


def test_an_expiry_is_kept_until_the_alias_moves(timed: tuple[World, ManualClock]) -> None:
    world, clock = timed
    version = world.evaluated()
    options = {"gate": GATE, "expires_at": "2026-01-01T00:01:00Z"}
    proposal = world.catalog.propose(NAME, version, actor="alice", **options)  # type: ignore[arg-type]
    assert world.catalog.propose(NAME, version, actor="alice", **options) == proposal  # type: ignore[arg-type]
    world.catalog.approve(proposal.id, actor="bob")
    assert world.catalog.alias(NAME).expires_at == "2026-01-01T00:01:00.000000Z"
    clock.advance(60)
    assert world.catalog.verify() == []


def _release(
    version: Digest,
    role: SignerRole = "release",
    kind: str = RELEASE,
    number: int = 0,
    *,
    epoch: int = 0,
    percent: float = 100,
    adapter: str = "assistant",
    alias: str = "live",
    tenant: str = "bank_a",
    expires_at: str | None = None,
) -> Envelope:
    release = Release(
        tenant=tenant,
        adapter=adapter,
        alias=alias,
        version=version,
        percent=percent,
        epoch=epoch,
        expires_at=expires_at,
    )
    return signer(role, number).sign(kind, release.canonical())


def test_a_release_key_moves_exactly_this(signed: World) -> None:
    version, other = signed.evaluated(seed=1), signed.evaluated(seed=2)
    with pytest.raises(ReleaseSignatureRequired):
        signed.catalog.promote(NAME, version, gate=GATE, actor="test")
    for wrong in (
        _release(other),
        _release(version, epoch=1),
        _release(version, percent=5),
        _release(version, alias="staging"),
        _release(version, adapter="writer"),
        _release(version, tenant="retail_b"),
        _release(version, expires_at="2030-01-01T00:00:00.000000Z"),
        _release(version, "trainer"),
        _release(version, kind=MANIFEST),
        _release(version, number=7),
    ):
        with pytest.raises(SignatureInvalid):
            signed.catalog.promote(NAME, version, gate=GATE, release=wrong, actor="test")
    assert _points(signed) is None
    with pytest.raises(GateRefused):
        signed.catalog.promote(NAME, version, gate=GatePolicy(), release=_release(version), actor="test")
    signed.catalog.promote(NAME, version, gate=GATE, release=_release(version), actor="test")
    assert _points(signed) == version
    # It named epoch 0, so it works once.
    signed.catalog.promote(NAME, other, gate=GATE, release=_release(other, epoch=1), actor="test")
    with pytest.raises(SignatureInvalid, match="epoch"):
        signed.catalog.promote(NAME, version, gate=GATE, release=_release(version), actor="test")
    with pytest.raises(ReleaseSignatureRequired):
        signed.catalog.promote(NAME, version, gate=GATE, percent=5, actor="test")
    share = _release(version, epoch=2, percent=5)
    signed.catalog.promote(NAME, version, gate=GATE, percent=5, release=share, actor="test")
    assert signed.catalog.rollback(NAME, actor="test").version == other
    assert signed.catalog.verify() == []


def test_a_distrusted_release_key_releases_nothing(signed: World) -> None:
    version, other = signed.evaluated(seed=1), signed.evaluated(seed=2)
    signed.catalog.promote(NAME, version, gate=GATE, release=_release(version), actor="test")
    signed.catalog.distrust(signer("release").public.id, reason="stolen", actor="test")
    with pytest.raises(SignatureInvalid):
        signed.catalog.promote(NAME, other, gate=GATE, release=_release(other, epoch=1), actor="test")
    assert signed.catalog.verify() == []


def test_a_signature_that_nobody_asked_for_must_hold(world: World) -> None:
    version = world.evaluated()
    with pytest.raises(SignatureInvalid):
        world.catalog.promote(NAME, version, gate=GATE, release=_release(version, epoch=9), actor="test")
    assert _points(world) is None


def test_eyes_and_signature_together(signed: World) -> None:
    signed.catalog.protect(SIGNED.model_copy(update={"approvals": 1}), actor="cli")
    version = signed.evaluated()
    with pytest.raises(ReleaseSignatureRequired):
        _propose(signed, version)
    proposal = signed.catalog.propose(NAME, version, gate=GATE, release=_release(version), actor="alice")
    signed.catalog.approve(proposal.id, actor="bob")
    assert _points(signed) == version
    assert "release" in signed.catalog.entries(signed.catalog.snapshot().size - 1)[0].body


def test_a_protection_that_came_later_counts(world: World) -> None:
    world.catalog.protect(FOUR_EYES, actor="cli")
    version = world.evaluated()
    proposal = _propose(world, version)
    world.catalog.protect(SIGNED.model_copy(update={"approvals": 1}), actor="cli")
    with pytest.raises(ReleaseSignatureRequired):
        world.catalog.approve(proposal.id, actor="bob")
    assert _points(world) is None


def test_another_name_is_no_way_around(protected: World) -> None:
    """Neither a rule to an alias that nobody protected, nor a protection that comes after the rule."""
    policy = protected.catalog.publish_policy(Policy(tenant="bank_a", name="answers"), actor="cli")
    rule = Route(
        tenant="bank_a", name="r", model="assistant", adapter="assistant", alias="aside", policy=policy
    )
    version = protected.evaluated(seed=1)
    with pytest.raises(RouteRefused, match="less consent"):
        protected.catalog.publish_routing("bank_a", routes=[rule], actor="key:mine")
    aside = Protection(tenant="bank_a", alias="aside", approvals=1)
    protected.catalog.protect(aside, actor="cli")
    protected.catalog.publish_routing("bank_a", routes=[rule], actor="key:mine")
    protected.catalog.protect(FOUR_EYES.model_copy(update={"approvals": 2}), actor="cli")
    assert [each.flaw for each in protected.catalog.prove_routing("bank_a").errors] == [Flaw.UNPROTECTED]
    with pytest.raises(ApprovalRequired, match="2 approvals"):
        protected.catalog.promote(NAME, version, gate=GATE, alias="aside", actor="key:mine")
    protected.catalog.promote(
        NAME, version, gate=GATE, alias="staging", actor="key:mine"
    )  # nobody is led there


def test_who_may_take_protection_away(protected: World) -> None:
    admin, platform = _key(protected), _key(protected, tenant=None)
    stricter = Protection(tenant="bank_a", alias="live", approvals=2, release_signature=True)
    protected.catalog.protect(stricter, actor=f"key:{admin}")
    size = protected.catalog.snapshot().size
    protected.catalog.protect(stricter, actor=f"key:{admin}")
    assert protected.catalog.snapshot().size == size
    for weaker in (
        stricter.model_copy(update={"approvals": 1}),
        stricter.model_copy(update={"approvals": 5, "release_signature": False}),
    ):
        with pytest.raises(ProtectionWeakened):
            protected.catalog.protect(weaker, actor=f"key:{admin}")
    assert protected.catalog.protections("bank_a") == (stricter,)
    assert protected.catalog.protections("retail_b") == ()
    protected.catalog.protect(FOUR_EYES, actor=f"key:{platform}")
    assert protected.catalog.protections("bank_a") == (FOUR_EYES,)
    with pytest.raises(TenantNotFound):
        protected.catalog.protect(Protection(tenant="nobody", alias="live"), actor="cli")
    with pytest.raises(TenantNotFound):
        protected.catalog.protections("nobody")
    assert protected.catalog.verify() == []


def test_a_stricter_gate_needs_its_own_proposal(world: World) -> None:
    world.catalog.protect(FOUR_EYES, actor="cli")
    version = world.evaluated()
    loose = _propose(world, version)
    strict = GatePolicy(rules=(Rule(metric="accuracy", at_least=0.85),))
    assert world.catalog.propose(NAME, version, gate=strict, actor="alice").id != loose.id
