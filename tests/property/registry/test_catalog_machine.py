"""Random operations by random people on aliases, proposals, protections and keys, beside a model of them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry.assignment import assigned
from registry.blobs.memory import InMemoryBlobs
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import ManualClock, stamp
from registry.digests import Digest
from registry.errors import AliasNotFound, KeyRefused, TenonError
from registry.evidence import GatePolicy, Verdict
from registry.models import AliasState, Role
from registry.promotions import Proposal, Protection, Release
from registry.signing.envelope import Envelope
from registry.signing.types import RELEASE
from registry.store.database import Database
from tests.support.registries import GATE, NAME, open_world, signer

ALIASES = ("live", "staging")
PEOPLE = ("alice", "bob", "carol")
UNITS = tuple(f"unit {number}" for number in range(40))
START = ManualClock().now()

aliases = st.sampled_from(ALIASES)
numbers = st.integers(0, 6)
gates = st.sampled_from((GATE, GATE, GATE, GatePolicy()))
percents = st.sampled_from((100.0, 100.0, 0.01, 5.0, 30.0, 60.0, 99.99))
epochs = st.sampled_from((None, None, 0, 1))
"""Added to the true one; None: the caller does not say."""


@cache
def _template() -> tuple[Path, InMemoryBlobs, tuple[Digest, ...]]:
    """Four good versions, then one without a report, one with a bad one, one without a fingerprint."""
    folder = Path(tempfile.mkdtemp(prefix="tenon-machine-"))
    blobs = InMemoryBlobs()
    world = open_world(folder, blobs=blobs)
    versions = [world.evaluated(seed=seed) for seed in range(4)]
    versions += [world.push(seed=4), world.push(seed=5), world.push(seed=6, fingerprinted=False)]
    world.catalog.file_report(world.report(versions[5], accuracy=0.1), actor="test")
    world.catalog.file_report(world.report(versions[6]), actor="test")
    world.database.close()
    return folder / "registry.db", blobs, tuple(versions)


@dataclass
class Alias:
    """What the model knows of one; versions by number."""

    epoch: int = 0
    stable: int | None = None
    canaries: dict[int, float] = field(default_factory=dict)
    shadows: set[int] = field(default_factory=set)
    ladder: list[int] = field(default_factory=list)
    before: list[tuple[int, int, int] | None] = field(default_factory=list)
    """For each of them, what was the former one then."""
    since: int = 0
    """The epoch in which everybody got the stable one."""
    former: tuple[int, int, int] | None = None
    """(version, the first and the last epoch in which everybody got it)."""


@dataclass
class KnownKey:
    id: str
    secret: str
    root: str
    issuer: str
    expires: float | None = None
    revoked: bool = False


class Catalog(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        source, blobs, self.versions = _template()
        self.folder = Path(tempfile.mkdtemp(prefix="tenon-machine-"))
        shutil.copy(source, self.folder / "registry.db")
        self.database = Database(self.folder / "registry.db")
        self.clock = ManualClock()
        self.catalog = LocalCatalog(
            database=self.database, blobs=blobs, signer=signer("log"), clock=self.clock
        )
        self.known = {alias: Alias() for alias in ALIASES}
        self.protections = {alias: Protection(tenant="bank_a", alias=alias) for alias in ALIASES}
        self.open_proposals: dict[str, Proposal] = {}
        self.closed: list[str] = []
        self.revoked: set[int] = set()
        self.keys: dict[str, KnownKey] = {}
        self.latest = 0.0
        self.suspended = False

    def teardown(self) -> None:
        if not hasattr(self, "catalog"):
            return
        assert self.catalog.verify() == []
        self._check_log()
        self.database.close()
        shutil.rmtree(self.folder)

    # People

    def _actor(self, number: int) -> str:
        everybody = [*PEOPLE, *(f"key:{key}" for key in self.keys)]
        return everybody[number % len(everybody)]

    def _line(self, actor: str) -> set[str]:
        key = self.keys.get(actor.removeprefix("key:"))
        if key is None:
            return {actor}
        return {key.root} | self._line(key.issuer) | self._line(self.keys[key.root].issuer)

    def _root(self, actor: str) -> str:
        key = self.keys.get(actor.removeprefix("key:"))
        return key.root if key else actor

    def _independent(self, one: str, other: str) -> bool:
        mine, theirs = self._line(one), self._line(other)
        if self._root(one) in theirs or self._root(other) in mine:
            return False
        return not any(name in self.keys for name in mine & theirs)

    @contextmanager
    def _expecting(self, refusal: bool) -> Iterator[list[bool]]:
        """The catalog must refuse exactly if the model does, and then change nothing."""
        size, done, said = len(self.catalog.entries(0, 10_000)), [False], ""
        try:
            yield done
            done[0] = True
        except TenonError as error:
            said = error.message
        assert done[0] != refusal, f"the model says otherwise: {said or 'it was done'}"
        assert done[0] or len(self.catalog.entries(0, 10_000)) == size

    # Moves

    def _speaks_against(
        self, alias: str, number: int, gate: GatePolicy, percent: float, released: bool
    ) -> bool:
        known = self.known[alias]
        others = {other: share for other, share in known.canaries.items() if other != number}
        share_fails = percent < 100 and (
            known.stable in (None, number) or len(others) > 1 or sum(others.values()) + percent > 99.995
        )
        return (
            number > 3
            or number in self.revoked
            or not gate.rules
            or share_fails
            or (self.protections[alias].release_signature and not released)
        )

    def _moved(self, alias: str, number: int, percent: float) -> None:
        known = self.known[alias]
        if percent == 100:
            if (known.stable, known.canaries) == (number, {}):
                return
            if known.stable is not None and known.stable != number:
                gone = known.stable in self.revoked
                known.former = None if gone else (known.stable, known.since, known.epoch)
            if known.stable != number:
                known.since = known.epoch + 1
            known.stable, known.canaries = number, {}
            known.ladder.append(number)
            known.before.append(known.former)
        elif known.canaries.get(number) == percent:
            return
        else:
            known.canaries[number] = percent
        known.shadows.discard(number)
        self._next_epoch(alias)

    def _next_epoch(self, alias: str) -> None:
        self.known[alias].epoch += 1
        for proposal in list(self.open_proposals.values()):
            if proposal.alias == alias:
                self.closed.append(self.open_proposals.pop(proposal.id).id)

    def _release(self, alias: str, number: int, percent: float) -> Envelope:
        release = Release(
            tenant=NAME.tenant,
            adapter=NAME.adapter,
            alias=alias,
            version=self.versions[number],
            percent=percent,
            epoch=self.known[alias].epoch,
        )
        return signer("release").sign(RELEASE, release.canonical())

    @rule(
        alias=aliases,
        number=numbers,
        gate=gates,
        percent=percents,
        ahead=epochs,
        who=numbers,
        sign=st.booleans(),
    )
    def promote(
        self,
        alias: str,
        number: int,
        gate: GatePolicy,
        percent: float,
        ahead: int | None,
        who: int,
        sign: bool,
    ) -> None:
        known = self.known[alias]
        refusal = (
            self._speaks_against(alias, number, gate, percent, sign)
            or ahead == 1
            or self.protections[alias].approvals > 0
        )
        with self._expecting(refusal) as done:
            self.catalog.promote(
                NAME,
                self.versions[number],
                gate=gate,
                alias=alias,
                percent=percent,
                expect_epoch=None if ahead is None else known.epoch + ahead,
                release=self._release(alias, number, percent) if sign else None,
                actor=self._actor(who),
            )
        if done[0]:
            self._moved(alias, number, percent)

    @rule(alias=aliases, number=numbers, ahead=epochs, who=numbers)
    def prepare(self, alias: str, number: int, ahead: int | None, who: int) -> None:
        """Nothing moves, whoever asks for it."""
        with self._expecting(number in self.revoked or number == 6 or ahead == 1):
            self.catalog.prepare(
                NAME,
                self.versions[number],
                seconds=60,
                alias=alias,
                expect_epoch=None if ahead is None else self.known[alias].epoch + ahead,
                actor=self._actor(who),
            )

    @rule(alias=aliases, who=numbers)
    def roll_back(self, alias: str, who: int) -> None:
        known = self.known[alias]
        below = [
            (at, number)
            for at, number in enumerate(known.ladder[:-1])
            if number != known.stable and number not in self.revoked
        ]
        with self._expecting(known.stable is None or not (known.canaries or below)) as done:
            self.catalog.rollback(NAME, alias=alias, actor=self._actor(who))
        if done[0]:
            if known.canaries:
                if known.former and known.former[0] in known.canaries:
                    known.former = None
                known.canaries = {}
            else:
                at, known.stable = below[-1]
                known.former, known.since = known.before[at], known.epoch + 1
                if known.former and known.former[0] in self.revoked:
                    known.former = None
                del known.ladder[at + 1 :], known.before[at + 1 :]
                known.shadows.discard(known.stable)
            self._next_epoch(alias)

    @rule(alias=aliases, wanted=st.sets(numbers, max_size=5), who=numbers)
    def shadow(self, alias: str, wanted: set[int], who: int) -> None:
        known = self.known[alias]
        refusal = (
            known.stable is None
            or len(wanted) > 4
            or bool(wanted & ({known.stable, 6} | known.canaries.keys() | self.revoked))
        )
        with self._expecting(refusal) as done:
            chosen = [self.versions[number] for number in wanted]
            self.catalog.shadow(NAME, chosen, alias=alias, actor=self._actor(who))
        if done[0] and wanted != known.shadows:
            known.shadows = set(wanted)
            self._next_epoch(alias)

    @rule(number=numbers)
    def revoke(self, number: int) -> None:
        if len(self.revoked) >= 2:  # else soon nothing is left to move
            return
        self.catalog.revoke(self.versions[number], reason="x", actor="alice")
        if number in self.revoked:
            return
        self.revoked.add(number)
        for alias, known in self.known.items():
            former = known.former is not None and known.former[0] == number
            if former or number in known.canaries or number in known.shadows:
                known.former = None if former else known.former
                known.canaries.pop(number, None)
                known.shadows.discard(number)
                self._next_epoch(alias)
        for proposal in list(self.open_proposals.values()):
            if proposal.version == self.versions[number]:
                self.closed.append(self.open_proposals.pop(proposal.id).id)

    # Consent

    @rule(alias=aliases, approvals=st.integers(0, 2), sign=st.booleans(), who=numbers)
    def protect(self, alias: str, approvals: int, sign: bool, who: int) -> None:
        now = self.protections[alias]
        wanted = Protection(tenant="bank_a", alias=alias, approvals=approvals, release_signature=sign)
        weaker = approvals < now.approvals or (now.release_signature and not sign)
        actor = self._actor(who)
        with self._expecting(weaker and actor.startswith("key:")) as done:
            self.catalog.protect(wanted, actor=actor)
        if done[0]:
            self.protections[alias] = wanted

    @rule(alias=aliases, number=numbers, gate=gates, percent=percents, who=numbers, sign=st.booleans())
    def propose(
        self, alias: str, number: int, gate: GatePolicy, percent: float, who: int, sign: bool
    ) -> None:
        refusal = (
            self._speaks_against(alias, number, gate, percent, sign) or not self.protections[alias].approvals
        )
        with self._expecting(refusal):
            proposal = self.catalog.propose(
                NAME,
                self.versions[number],
                gate=gate,
                alias=alias,
                percent=percent,
                release=self._release(alias, number, percent) if sign else None,
                actor=self._actor(who),
            )
            self.open_proposals[proposal.id] = proposal

    @precondition(lambda self: self.open_proposals)
    @rule(which=numbers, who=st.integers(0, 20))
    def approve(self, which: int, who: int) -> None:
        proposal = list(self.open_proposals.values())[which % len(self.open_proposals)]
        actor, alias = self._actor(who), proposal.alias
        number = self.versions.index(proposal.version)
        needed = self.protections[alias].approvals
        last = len(proposal.approved_by) + 1 >= needed
        refusal = not all(
            self._independent(actor, other) for other in (proposal.proposed_by, *proposal.approved_by)
        ) or (
            last
            and self._speaks_against(
                alias, number, proposal.gate, proposal.percent, proposal.release is not None
            )
        )
        with self._expecting(refusal) as done:
            found = self.catalog.approve(proposal.id, actor=actor)
        if not done[0]:
            return
        assert found.approved_by == (*proposal.approved_by, actor)
        assert found.state == ("done" if last else "open")
        if last:
            self.closed.append(self.open_proposals.pop(proposal.id).id)
            self._moved(alias, number, proposal.percent)
        else:
            self.open_proposals[proposal.id] = found

    @precondition(lambda self: self.open_proposals)
    @rule(which=numbers, who=numbers)
    def reject(self, which: int, who: int) -> None:
        proposal = list(self.open_proposals)[which % len(self.open_proposals)]
        self.catalog.reject(proposal, reason="no", actor=self._actor(who))
        self.closed.append(self.open_proposals.pop(proposal).id)

    @precondition(lambda self: self.closed)
    @rule(which=numbers, who=numbers)
    def approve_what_is_over(self, which: int, who: int) -> None:
        with self._expecting(refusal=True):
            self.catalog.approve(self.closed[which % len(self.closed)], actor=self._actor(who))

    # Keys and time

    @rule(who=numbers, lasts=st.sampled_from((None, 10.0, 100.0)))
    def issue_key(self, who: int, lasts: float | None) -> None:
        issuer = self._actor(who)
        expires = None if lasts is None else self.latest + lasts
        key, secret = self.catalog.issue_key(
            "bank_a",
            role=Role.TENANT_ADMIN,
            expires_at=None if expires is None else self._stamp(expires),
            actor=issuer,
        )
        self.keys[key.id] = KnownKey(key.id, secret, key.id, issuer, expires)

    @precondition(lambda self: self.keys)
    @rule(which=numbers, who=numbers, overlap=st.sampled_from((0.0, 10.0, 100.0)))
    def rotate_key(self, which: int, who: int, overlap: float) -> None:
        old = list(self.keys.values())[which % len(self.keys)]
        actor = self._actor(who)
        over = old.revoked or (old.expires is not None and old.expires <= self.latest)
        with self._expecting(over):
            key, secret = self.catalog.rotate_key(old.id, overlap_seconds=overlap, actor=actor)
            self.keys[key.id] = KnownKey(key.id, secret, old.root, actor, old.expires)
            ends = self.latest + overlap
            old.expires = ends if old.expires is None else min(ends, old.expires)

    @precondition(lambda self: self.keys)
    @rule(which=numbers)
    def revoke_key(self, which: int) -> None:
        key = list(self.keys.values())[which % len(self.keys)]
        self.catalog.revoke_key(key.id, actor="alice")
        key.revoked = True

    @rule(suspend=st.booleans())
    def suspend_or_resume(self, suspend: bool) -> None:
        if suspend:
            self.catalog.suspend_tenant("bank_a", reason="x", actor="alice")
        else:
            self.catalog.resume_tenant("bank_a", actor="alice")
        self.suspended = suspend

    @rule(seconds=st.integers(-60, 60))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)
        # Seen at once: nobody can know of a time that came and went while nothing was asked.
        self._try("tn_" + "0" * 16 + "_" + "A" * 43)
        self.latest = max(self.latest, (self.clock.now() - START).total_seconds())

    def _stamp(self, seconds: float) -> str:
        return stamp(START + timedelta(seconds=seconds))

    def _try(self, secret: str) -> bool:
        try:
            self.catalog.authenticate(secret)
        except KeyRefused:
            return False
        return True

    # What always holds

    @invariant()
    def the_aliases_are_the_models(self) -> None:
        if not hasattr(self, "known"):
            return
        for alias, known in self.known.items():
            try:
                state = self.catalog.alias(NAME, alias)
            except AliasNotFound:
                assert known.stable is None
                continue
            assert known.stable is not None
            assert (state.version, state.epoch) == (self.versions[known.stable], known.epoch)
            assert {canary.version: canary.percent for canary in state.canaries} == {
                self.versions[number]: percent for number, percent in known.canaries.items()
            }
            assert set(state.shadows) == {self.versions[number] for number in known.shadows}
            former = known.former and (self.versions[known.former[0]], *known.former[1:])
            told = state.former
            assert (told and (told.version, told.since, told.epoch)) == former
            assert former is None or (former[0] != state.version and former[2] < state.epoch)
            served = {assigned(state, unit) for unit in UNITS}
            assert served <= {state.version, *(canary.version for canary in state.canaries)}

    @invariant()
    def keys_open_as_long_as_they_should(self) -> None:
        for key in getattr(self, "keys", {}).values():
            alive = key.expires is None or key.expires > self.latest
            assert self._try(key.secret) == (alive and not key.revoked and not self.suspended)

    @invariant()
    def open_proposals_are_the_models(self) -> None:
        if hasattr(self, "open_proposals"):
            found = {item.id: item for item in self.catalog.proposals("bank_a") if item.state == "open"}
            assert found == self.open_proposals

    def _check_log(self) -> None:
        """From the log alone: nobody moved an alias without a passing verdict and the consent it needed."""
        needed: dict[str, Protection] = {}
        consented: dict[str, Proposal] = {}
        epochs = dict.fromkeys(ALIASES, 0)
        for entry in self.catalog.entries(0, 10_000):
            body: dict[str, Any] = entry.body
            if entry.kind == "alias.protected":
                protection = Protection.build(body["protection"])
                needed[protection.alias] = protection
            elif entry.kind == "promotion.approved":
                proposal = Proposal.build(body["proposal"])
                consented[proposal.id] = proposal
            elif entry.kind == "alias.moved":
                state = AliasState.build(body["alias"])
                epochs[state.alias] += 1
                assert state.epoch == epochs[state.alias]
                if body["cause"] in ("promotion", "canary"):
                    self._check_move(state, body, needed.get(state.alias), consented)

    def _check_move(
        self,
        state: AliasState,
        body: dict[str, Any],
        protection: Protection | None,
        consented: dict[str, Proposal],
    ) -> None:
        verdict = Verdict.build(body["verdict_body"])
        assert verdict.passed
        assert GatePolicy.build(body["gate"]).rules
        assert verdict.version in (state.version, *(canary.version for canary in state.canaries))
        if protection and protection.approvals:
            proposal = consented[body["proposal"]]
            people = (proposal.proposed_by, *proposal.approved_by)
            assert len(proposal.approved_by) >= protection.approvals
            assert len({self._root(person) for person in people}) == len(people)
            assert (proposal.version, proposal.epoch) == (verdict.version, state.epoch - 1)
        if protection and protection.release_signature:
            assert body["release"] is not None


TestCatalog = Catalog.TestCase
TestCatalog.settings = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
