"""What people and trainers ask of a catalog: the same answers from one in a folder and one behind a URL."""

import inspect
from pathlib import Path

import pytest

from registry.catalog.errors import (
    ApprovalRequired,
    ApprovalUnneeded,
    EngineNotFound,
    KeyEnded,
    KeyInvalid,
    NothingToRollBack,
    PromotionNotReady,
    ProposalClosed,
    ProposalNotFound,
    ReleaseSignatureRequired,
    SignerNotFound,
    TenantMoved,
    VersionUnfingerprinted,
)
from registry.catalog.local.catalog import LocalCatalog
from registry.catalog.remote.catalog import RemoteCatalog
from registry.digests import Digest
from registry.errors import (
    AdapterNotFinite,
    AliasMoved,
    AliasNotFound,
    AlreadyExists,
    BaseNotFound,
    GateRefused,
    KeyNotFound,
    KeyRefused,
    PolicyNotFound,
    SignatureInvalid,
    TenantNotFound,
    VersionNotFound,
    VersionRevoked,
)
from registry.evidence import GatePolicy
from registry.manifests import Provenance
from registry.models import Isolation, Level, Policy, Quota, Role, Tenant
from registry.names import AdapterName, Ref
from registry.promotions import Protection, Release, WayBack
from registry.signing.types import MANIFEST, RELEASE
from tests.support.adapters import tiny_base, write_adapter
from tests.support.registries import GATE, NAME, World, route, signer
from tests.support.remote import NOT_OVER_HTTP

NOBODY = AdapterName("nobody", "assistant")


def test_what_cannot_be_asked_over_http_is_a_short_list() -> None:
    def calls(kind: type) -> dict[str, inspect.Signature]:
        return {
            name: inspect.signature(call)
            for name, call in inspect.getmembers(kind, callable)
            if not name.startswith("_")
        }

    here, there = calls(LocalCatalog), calls(RemoteCatalog)
    assert set(here) - set(there) == NOT_OVER_HTTP - {"answers"}  # which is no call
    for name in set(here) & set(there):  # whoever can call the one can call the other
        more = set(there[name].parameters) - set(here[name].parameters)
        assert set(here[name].parameters) <= set(there[name].parameters), name
        assert all(there[name].parameters[one].default is not inspect.Parameter.empty for one in more), name


def test_tenants(world: World) -> None:
    catalog = world.catalog
    catalog.create_tenant(Tenant(id="saas_c", display_name="SaaS C"), actor="t")
    with pytest.raises(AlreadyExists):
        catalog.create_tenant(Tenant(id="saas_c", display_name="again"), actor="t")
    assert [tenant.id for tenant in catalog.tenants()] == ["bank_a", "retail_b", "saas_c"]
    assert [tenant.id for tenant in catalog.tenants(after="bank_a", limit=1)] == ["retail_b"]
    assert [tenant.id for tenant in catalog.tenants(after="bank_b")] == ["retail_b", "saas_c"]  # nobody's id
    seen = catalog.tenant("saas_c").identity()
    catalog.set_quota("saas_c", Quota(tokens_per_day=5), actor="t", expect=seen)
    with pytest.raises(TenantMoved):
        catalog.set_quota("saas_c", Quota(), actor="t", expect=seen)
    catalog.rename_tenant("saas_c", "Somebody else", actor="t")
    assert catalog.tenant("saas_c").display_name == "Somebody else"
    catalog.suspend_tenant("saas_c", reason="unpaid", actor="t")
    found = catalog.tenant("saas_c")
    assert (found.suspended, found.quota.tokens_per_day, found.quota.requests_per_minute) == (True, 5, None)
    catalog.resume_tenant("saas_c", actor="t")
    assert not catalog.tenant("saas_c").suspended
    with pytest.raises(TenantNotFound):
        catalog.tenant("nobody")
    with pytest.raises(TenantNotFound):
        catalog.set_quota("nobody", Quota(), actor="t")


def test_keys(world: World) -> None:
    catalog = world.catalog
    key, secret = catalog.issue_key("bank_a", role=Role.TRAINER, label="ci", actor="t")
    assert (key.role, key.label, catalog.authenticate(secret)) == (Role.TRAINER, "ci", key)
    assert catalog.key(key.id).quota is None
    catalog.limit_key(key.id, Quota(requests_per_minute=5), actor="t")
    assert catalog.key(key.id).quota == Quota(requests_per_minute=5)
    with pytest.raises(KeyInvalid):
        catalog.limit_key(key.id, Quota(weight=2), actor="t")
    with pytest.raises(KeyNotFound):
        catalog.limit_key("0" * 16, Quota(), actor="t")
    newer, other = catalog.rotate_key(key.id, overlap_seconds=0, actor="t")
    assert newer.quota == Quota(requests_per_minute=5)  # rotating a key does not free it
    with pytest.raises(KeyEnded):
        catalog.limit_key(key.id, None, actor="t")
    catalog.limit_key(newer.id, None, actor="t")
    assert catalog.key(newer.id).quota is None
    assert other != secret
    with pytest.raises(KeyRefused):
        catalog.authenticate(secret)
    with pytest.raises(KeyEnded):
        catalog.rotate_key(key.id, overlap_seconds=0, actor="t")
    catalog.revoke_key(newer.id, actor="t")
    assert {one.id: one.revoked for one in catalog.keys("bank_a")} == {key.id: False, newer.id: True}
    with pytest.raises(TenantNotFound):
        catalog.keys("nobody")
    with pytest.raises(KeyNotFound):
        catalog.revoke_key("0" * 16, actor="t")


def test_signers(world: World) -> None:
    catalog = world.catalog
    new = signer("trainer", 7).public
    catalog.trust(new, actor="t")
    assert catalog.trusted()[new.id] == new
    catalog.distrust(new.id, reason="lost", actor="t")
    assert new.id not in catalog.trusted()
    with pytest.raises(SignerNotFound):
        catalog.distrust("0" * 16, reason="x", actor="t")


def test_bases_and_policies(world: World) -> None:
    catalog = world.catalog
    base, contract = tiny_base(revision="r2")
    assert catalog.register_base(base, contract, actor="t") == base.identity()
    assert catalog.base("tiny") == (base.identity(), base, contract)
    assert catalog.base(world.base)[0] == world.base
    assert set(catalog.bases()) == {world.base, base.identity()}
    with pytest.raises(BaseNotFound):
        catalog.base("other")
    policy = world.policy()
    published = catalog.publish_routing("bank_a", routes=[route(policy)], expect_revision=0, actor="t")
    assert (published.revision, catalog.routing("bank_a")) == (1, published)
    assert [found.identity() for found in catalog.policies("bank_a")] == [policy]
    again = catalog.publish_routing("bank_a", routes=[route(policy, name="again")], actor="t")
    first, second = catalog.routings("bank_a")
    assert (first.routing, second.routing) == (published, again)
    assert catalog.routings("bank_a", after=first.entry, limit=1) == (second,)
    assert catalog.routings("bank_a", limit=1) == (first,)
    with pytest.raises(PolicyNotFound):
        catalog.publish_routing("bank_a", routes=[route(world.base)], actor="t")


def test_a_list_begins_behind_a_key_whether_or_not_it_is_there(world: World) -> None:
    """One page each, from any catalog alike: for programs that keep the key and not the cursor."""
    catalog = world.catalog
    pushed = {name: world.push(AdapterName("bank_a", name), seed=seed) for seed, name in enumerate("aceg")}
    world.push(AdapterName("retail_b", "b"), seed=9)
    names = [AdapterName("bank_a", name) for name in pushed]
    assert catalog.adapters(after=AdapterName("bank_a", "d")) == (*names[2:], AdapterName("retail_b", "b"))
    assert catalog.adapters(after=AdapterName("aaa", "x"), limit=2) == tuple(names[:2])
    assert catalog.adapters("bank_a", after=AdapterName("bank_a", "d"), limit=1) == (names[2],)
    assert catalog.adapters("bank_a", after=AdapterName("bank_b", "a")) == ()
    assert catalog.adapters("retail_b", after=AdapterName("bank_a", "g")) == (AdapterName("retail_b", "b"),)
    assert catalog.versions(names[0], after=world.base) == ()  # in the order of pushes it has no place
    policies = sorted(
        catalog.publish_policy(Policy(tenant="bank_a", name=name), actor="t") for name in pushed
    )
    between = Digest(policies[1][:-1] + ("0" if policies[1][-1] > "0" else "1"))
    expected = [policy for policy in policies if policy > between]
    assert [each.identity() for each in catalog.policies("bank_a", after=between)] == expected
    keys = [catalog.issue_key("bank_a", role=Role.TRAINER, actor="t")[0] for _ in range(4)]
    ids = sorted(key.id for key in keys)
    assert [key.id for key in catalog.keys("bank_a", after=ids[1][:-1])] == ids[1:]
    assert [key.id for key in catalog.keys("bank_a", after="z")] == []


def test_versions_of_a_name_in_the_order_of_their_pushes(world: World) -> None:
    pushed = [world.push(seed=seed) for seed in (3, 1, 2)]
    catalog = world.catalog
    assert [one.version for one in catalog.versions(NAME)] == pushed
    assert [one.version for one in catalog.versions(NAME, after=pushed[0], limit=1)] == [pushed[1]]
    assert catalog.versions(AdapterName("bank_a", "other")) == ()
    assert catalog.adapters() == catalog.adapters("bank_a") == (NAME,)
    assert catalog.version_count(NAME) == 3
    assert catalog.version(pushed[0]).state == "pushed"
    with pytest.raises(VersionNotFound):
        catalog.resolve(Ref(NAME, version=world.base))
    with pytest.raises(AliasNotFound):
        catalog.resolve(Ref(NAME, alias="live"))


def test_nothing_bad_is_stored(world: World, tmp_path: Path) -> None:
    base, _ = tiny_base()
    folder = write_adapter(tmp_path / "bad", base, seed=1)
    weights = folder / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"  # NaN, little-endian float32
    weights.write_bytes(bytes(data))
    given = {"base": world.base, "fingerprint": None, "actor": "t"}
    provenance = Provenance(method="upload")
    with pytest.raises(AdapterNotFinite):
        world.catalog.push(NAME, folder, provenance=provenance, **given)  # type: ignore[arg-type]
    good = write_adapter(tmp_path / "good", base, seed=1)
    with pytest.raises(TenantNotFound):
        world.catalog.push(NOBODY, good, provenance=provenance, **given)  # type: ignore[arg-type]
    with pytest.raises(BaseNotFound):
        world.catalog.push(NAME, good, provenance=provenance, **given | {"base": Digest.of(b"no base")})  # type: ignore[arg-type]
    assert world.catalog.adapters() == ()


def test_a_version_is_signed_by_whoever_made_it(world: World) -> None:
    version = world.push()
    manifest = world.catalog.manifest(version).canonical()
    envelope = signer("trainer").sign(MANIFEST, manifest)
    for _ in range(2):
        world.catalog.sign_version(version, envelope, actor="t")
    assert world.catalog.signatures(version) == (envelope,)
    with pytest.raises(SignatureInvalid):
        world.catalog.sign_version(version, signer("trainer", 9).sign(MANIFEST, manifest), actor="t")
    with pytest.raises(SignatureInvalid):
        world.catalog.sign_version(version, signer("release").sign(MANIFEST, manifest), actor="t")


def test_evidence(world: World) -> None:
    version = world.evaluated()
    (report,) = world.catalog.reports(version)
    assert (report.version, report.metrics["accuracy"].value) == (version, 0.9)
    assert world.catalog.version(version).state == "evaluated"


def test_what_may_not_go_live(world: World) -> None:
    catalog, bare = world.catalog, world.push(seed=1, fingerprinted=False)
    with pytest.raises(VersionUnfingerprinted):
        catalog.promote(NAME, bare, gate=GATE, actor="t")
    version = world.evaluated(seed=2)
    with pytest.raises(GateRefused) as refused:
        catalog.promote(NAME, version, gate=GatePolicy(), actor="t")
    assert refused.value.facts["verdict"].reasons  # type: ignore[attr-defined]
    with pytest.raises(AliasMoved):
        catalog.promote(NAME, version, gate=GATE, expect_epoch=3, actor="t")
    assert catalog.aliases(NAME) == ()
    catalog.revoke(version, reason="x", actor="t")
    with pytest.raises(VersionRevoked):
        catalog.promote(NAME, version, gate=GATE, actor="t")


def test_canaries_shadows_and_back(world: World, tmp_path: Path) -> None:
    catalog = world.catalog
    first, second, third = world.promoted(seed=1), world.evaluated(seed=2), world.evaluated(seed=3)
    assert catalog.promote(NAME, second, gate=GATE, percent=12.5, expect_epoch=1, actor="t").passed
    state = catalog.alias(NAME)
    assert (state.version, [(one.version, one.percent) for one in state.canaries]) == (
        first,
        [(second, 12.5)],
    )
    state = catalog.shadow(NAME, [third], expect_epoch=2, actor="t")
    assert (state.shadows, state.epoch) == ((third,), 3)
    with pytest.raises(AliasMoved):
        catalog.rollback(NAME, expect_epoch=1, actor="t")
    assert catalog.way_back(NAME) == WayBack(version=first, epoch=3)
    assert catalog.rollback(NAME, require_ready=True, actor="t").canaries == ()
    catalog.promote(NAME, second, gate=GATE, actor="t")
    assert catalog.rollback(NAME, actor="t").version == first
    with pytest.raises(NothingToRollBack):
        catalog.rollback(NAME, actor="t")
    with pytest.raises(NothingToRollBack):
        catalog.way_back(NAME)
    moves = catalog.history(NAME)
    assert [(move.cause, move.epoch) for move in moves] == [
        ("promotion", 1), ("canary", 2), ("shadow", 3), ("rollback", 4), ("promotion", 5), ("rollback", 6),
    ]  # fmt: skip
    assert catalog.history(NAME, after=moves[1].entry, limit=2) == moves[2:4]
    assert catalog.history(NAME, "other") == ()
    manifest = catalog.export(first, tmp_path / "out")
    assert manifest.identity() == first


def test_an_alias_that_needs_consent(world: World) -> None:
    catalog, version = world.catalog, world.evaluated()
    with pytest.raises(ApprovalUnneeded):
        catalog.propose(NAME, version, gate=GATE, actor="t")
    protection = Protection(tenant="bank_a", alias="live", approvals=1)
    catalog.protect(protection, actor="t")
    assert catalog.protections("bank_a") == (protection,)
    with pytest.raises(ApprovalRequired):
        catalog.promote(NAME, version, gate=GATE, actor="t")
    assert catalog.proposals("bank_a") == ()  # being refused proposes nothing
    proposal = catalog.propose(NAME, version, gate=GATE, actor="t")
    assert catalog.proposals("bank_a") == (proposal,) == (catalog.proposal(proposal.id),)
    rejected = catalog.reject(proposal.id, reason="not today", actor="t")
    assert rejected.state == "rejected"
    with pytest.raises(ProposalClosed):
        catalog.approve(proposal.id, actor="t")
    assert catalog.aliases(NAME) == ()


def test_a_promotion_in_two_phases(world: World) -> None:
    catalog = world.catalog
    old, new = world.promoted(seed=1), world.evaluated(seed=2)
    catalog.announce(world.engine(), actor="engine-0")
    with pytest.raises(GateRefused):
        catalog.prepare(NAME, new, gate=GatePolicy(), seconds=60, actor="t")
    with pytest.raises(AliasMoved):
        catalog.prepare(NAME, new, seconds=60, expect_epoch=7, actor="t")
    with pytest.raises(VersionNotFound):
        catalog.readiness(NAME, Digest.of(b"none"))
    prepared = catalog.prepare(NAME, new, gate=GATE, seconds=60, expect_epoch=1, actor="t")
    assert (prepared.version, prepared.epoch, prepared.alias) == (new, 1, "live")
    found = catalog.readiness(NAME, new)
    assert (found.prepared_until, found.wanted, found.attested) == (prepared.until, 1, 0)
    assert found.waits_for == {"engine-0": False}  # the platform's own key
    with pytest.raises(PromotionNotReady, match="1 of 1 engines"):
        catalog.promote(NAME, new, gate=GATE, require_ready=True, actor="t")
    assert catalog.alias(NAME).version == old
    catalog.attest(world.attestation(new), actor="engine-0")
    assert catalog.readiness(NAME, new).ready
    catalog.promote(NAME, new, gate=GATE, require_ready=True, actor="t")
    former = catalog.alias(NAME).former
    assert former is not None
    assert former.version == old


def test_a_roll_back_in_two_phases(world: World) -> None:
    catalog = world.catalog
    old, new = world.promoted(seed=1), world.promoted(seed=2)
    catalog.announce(world.engine(), actor="engine-0")
    catalog.attest(world.attestation(new), actor="engine-0")
    with pytest.raises(PromotionNotReady, match="1 of 1 engines"):
        catalog.rollback(NAME, require_ready=True, actor="t")
    way = catalog.way_back(NAME)
    assert way == WayBack(version=old, epoch=2)
    catalog.prepare(NAME, way.version, seconds=60, expect_epoch=way.epoch, actor="t")
    assert catalog.alias(NAME).version == new
    catalog.attest(world.attestation(old), actor="engine-0")
    assert catalog.rollback(NAME, expect_epoch=way.epoch, require_ready=True, actor="t").version == old


def test_an_alias_that_needs_a_release_key(world: World) -> None:
    catalog, version = world.catalog, world.evaluated()
    catalog.protect(Protection(tenant="bank_a", alias="live", release_signature=True), actor="t")
    with pytest.raises(ReleaseSignatureRequired):
        catalog.promote(NAME, version, gate=GATE, actor="t")
    release = Release(tenant="bank_a", adapter="assistant", alias="live", version=version, epoch=0)
    signed = signer("release").sign(RELEASE, release.canonical())
    assert catalog.promote(NAME, version, gate=GATE, release=signed, actor="t").passed
    assert catalog.alias(NAME).version == version


def test_usage_of_nobody_is_nothing(world: World) -> None:
    days = {"first_day": "2026-01-01", "last_day": "2026-01-31"}
    assert world.catalog.usage("bank_a", **days) == ()
    assert world.catalog.usage_sums("bank_a", **days, by="day", after="2026-01-02", limit=3) == ()
    with pytest.raises(TenantNotFound):
        world.catalog.usage("nobody", **days)


def test_what_does_not_exist_is_not_found(world: World) -> None:
    with pytest.raises(TenantNotFound):
        world.catalog.proposals("nobody")
    version = world.push()
    with pytest.raises(AliasNotFound):
        world.catalog.alias(NAME)
    with pytest.raises(AliasNotFound):
        world.catalog.rollback(NAME, actor="t")
    assert world.catalog.resolve(Ref(NAME, version=version)) == version
    world.catalog.proposals("bank_a")
    with pytest.raises(ProposalNotFound):
        world.catalog.proposal("0" * 16)


def test_isolation(world: World) -> None:
    catalog = world.catalog
    assert catalog.isolate_tenant(
        "bank_a", Isolation(level=Level.PINNED, replicas=3), actor="t"
    ) == Isolation(level=Level.PINNED, replicas=3)
    seen = catalog.tenant("bank_a")
    assert seen.isolation == Isolation(level=Level.PINNED, replicas=3)
    catalog.isolate_tenant("bank_a", Isolation(), actor="t", expect=seen.identity())
    with pytest.raises(TenantMoved):
        catalog.isolate_tenant("bank_a", Isolation(), actor="t", expect=seen.identity())
    with pytest.raises(TenantNotFound):
        catalog.isolate_tenant("nobody", Isolation(), actor="t")
    with pytest.raises(EngineNotFound):
        catalog.isolate_tenant(
            "bank_a", Isolation(level=Level.DEDICATED, engines=("engine-9",)), force=True, actor="t"
        )
    assert catalog.fleet().engines == ()
