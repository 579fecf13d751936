"""Consent given with a second key over HTTP, by somebody who will not have the alias move too early."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.catalog.errors import ApprovalRefused, PromotionNotReady, ProposalNotFound
from registry.catalog.remote.catalog import RemoteCatalog
from registry.digests import Digest
from registry.models import Role
from registry.promotions import Proposal, Protection
from server.assembly.awaiting import Patience
from server.assembly.promoting import Move, approve, promote_or_propose
from tests.support.registries import GATE, NAME, World
from tests.support.remote import remote


@dataclass
class Desk:
    """Two engines serve ``old``; ann has proposed ``new``, and bob is asked."""

    world: World
    ann: RemoteCatalog
    bob: RemoteCatalog
    stranger: RemoteCatalog
    old: Digest
    new: Digest
    proposal: Proposal

    @property
    def live(self) -> Digest:
        return self.world.catalog.alias(NAME).version

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.world.catalog.entries()]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with (
        remote(tmp_path) as found,
        found.as_("bank_a", Role.TENANT_ADMIN) as ann,
        found.as_("bank_a", Role.TENANT_ADMIN) as bob,
        found.as_("retail_b", Role.TENANT_ADMIN) as stranger,
    ):
        world = found.world
        old, new = world.promoted(seed=1), world.evaluated(seed=2)
        for engine in ("engine-0", "engine-1"):
            world.catalog.announce(world.engine(engine), actor=engine)
            _holds(world, old, engine)
        world.catalog.protect(Protection(tenant="bank_a", alias="live", approvals=1), actor="root")
        move = Move(NAME, new, GATE, "live", 100, None, None)
        proposal = promote_or_propose(ann, move, release_key=None, patience=Patience(1), actor="cli").proposal
        assert proposal is not None
        yield Desk(world, ann, bob, stranger, old, new, proposal)


def _holds(world: World, version: Digest, engine: str) -> None:
    world.catalog.attest(world.attestation(version, engine=engine), actor=engine)


def test_the_second_key_does_not_move_the_alias_before_engines_hold_the_version(desk: Desk) -> None:
    size = desk.world.catalog.log_size()
    for ready in (0, 1):
        with pytest.raises(PromotionNotReady, match=f"{2 - ready} of 2 engines") as refused:
            desk.bob.approve(desk.proposal.id, require_ready=True, actor="cli")
        assert "engine-" not in refused.value.message
        _holds(desk.world, desk.new, f"engine-{ready}")
    assert desk.live == desk.old
    assert desk.kinds()[size:] == ["engine.attested", "engine.attested"], "a refused approval leaves no trace"
    done = desk.bob.approve(desk.proposal.id, require_ready=True, actor="cli")
    assert (done.state, done.approved_by) == ("done", (desk.bob.whoami().actor,))
    assert desk.live == desk.new


def test_the_second_key_may_wait_for_the_engines(desk: Desk) -> None:
    """Preparing, looking and approving are all asked of the registry with that key."""
    left = {1: "engine-0", 2: "engine-1"}
    pauses = 0

    def pause(_: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses in left:
            _holds(desk.world, desk.new, left[pauses])
        assert desk.live == desk.old

    patience = Patience(60, pause=pause)
    (asked,) = desk.bob.proposals("bank_a")
    assert approve(desk.bob, asked, patience=patience, actor="cli").state == "done"
    assert (desk.live, pauses) == (desk.new, 2)
    assert desk.kinds()[-2:] == ["promotion.approved", "alias.moved"]
    assert desk.kinds().count("promotion.prepared") == 1


def test_without_being_asked_to_wait_it_moves_at_once(desk: Desk) -> None:
    assert desk.bob.approve(desk.proposal.id, actor="cli").state == "done"
    assert desk.live == desk.new


def test_waiting_is_no_way_around_the_second_pair_of_eyes(desk: Desk) -> None:
    for engine in ("engine-0", "engine-1", None):
        with pytest.raises(ApprovalRefused):
            desk.ann.approve(desk.proposal.id, require_ready=True, actor="cli")
        with pytest.raises(ProposalNotFound):
            desk.stranger.approve(desk.proposal.id, require_ready=True, actor="cli", tenant="retail_b")
        if engine:
            _holds(desk.world, desk.new, engine)
    assert desk.live == desk.old
