"""A real registry in a temporary folder, with everything around it that a test would otherwise repeat."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry.blobs.memory import InMemoryBlobs
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import ManualClock
from registry.digests import Digest
from registry.evidence import GatePolicy, Metric, Report, Rule
from registry.fingerprint import Attestation, Nearest
from registry.manifests import Provenance
from registry.models import EngineState, Policy, RecordHead, Route, Tenant, Withdrawal
from registry.names import AdapterName
from registry.ports import BlobStore
from registry.shipping import genesis
from registry.signing import types
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer, SignerRole
from registry.store.database import upgrade
from registry.store.port import Store
from tests.support.adapters import tiny_base, tiny_fingerprint, write_adapter
from tests.support.stores import connect

GATE = GatePolicy(rules=(Rule(metric="accuracy", at_least=0.8),))
NAME = AdapterName("bank_a", "assistant")
BOOT = "boot-0001"


def signer(role: SignerRole, number: int = 0) -> Signer:
    """The same key every time: ``number`` tells two of one role apart."""
    return Signer(role, f"{role} {number}".encode().ljust(32, b"."))


@dataclass
class World:
    """``catalog`` trusts one signer a role and knows the tiny base and the tenants bank_a and retail_b."""

    folder: Path
    address: str
    """Of the database: see ``tests.support.stores.connect``."""
    database: Store
    blobs: BlobStore
    catalog: LocalCatalog
    base: Digest

    @property
    def file(self) -> Path:
        """Where SQLite is."""
        return self.folder / "registry.db"

    def push(self, name: AdapterName = NAME, *, seed: int = 0, fingerprinted: bool = True) -> Digest:
        base, _ = tiny_base()
        folder = write_adapter(self.folder / f"peft-{name.tenant}-{name.adapter}-{seed}", base, seed=seed)
        return self.catalog.push(
            name,
            folder,
            base=self.base,
            fingerprint=tiny_fingerprint(self.base, seed=seed) if fingerprinted else None,
            provenance=Provenance(method="upload"),
            actor="test",
        )

    def report(self, version: Digest, accuracy: float = 0.9, name: AdapterName = NAME) -> Envelope:
        figures = Metric(value=accuracy, n=100, stderr=0.01)
        report = Report(
            tenant=name.tenant,
            adapter=name.adapter,
            version=version,
            base=self.base,
            suite=Digest.of(b"suite"),
            metrics={"accuracy": figures},
            baseline={"accuracy": Metric(value=0.1, n=100, stderr=0.01)},
            adapter_active=True,
        )
        return signer("trainer").sign(types.REPORT, report.canonical())

    def evaluated(self, name: AdapterName = NAME, *, seed: int = 0) -> Digest:
        """A pushed version with a report that passes GATE."""
        version = self.push(name, seed=seed)
        self.catalog.file_report(self.report(version, name=name), actor="test")
        return version

    def promoted(self, name: AdapterName = NAME, *, seed: int = 0) -> Digest:
        version = self.evaluated(name, seed=seed)
        self.catalog.promote(name, version, gate=GATE, actor="test")
        return version

    def engine(self, name: str = "engine-0", *, boot: str = BOOT, up: bool = True) -> EngineState:
        return EngineState(
            engine=name,
            boot=boot,
            url="http://127.0.0.1:8001",
            base=self.base,
            engine_version="0.32.0",
            dtype="float32",
            max_loras=4,
            up=up,
        )

    def announced(
        self, name: str = "engine-0", *, boot: str = BOOT, up: bool = True, by: Signer | None = None
    ) -> Envelope:
        """Signed by the engine key, or by another one."""
        key = by or signer("engine")
        state = self.engine(name, boot=boot, up=up).model_copy(update={"key": key.public.id})
        return key.sign(types.ANNOUNCEMENT, state.canonical())

    def finding(
        self, version: Digest, *, engine: str = "engine-0", boot: str = BOOT, passed: bool = True
    ) -> Attestation:
        manifest = self.catalog.manifest(version)
        fingerprint = self.catalog.fingerprint_digest(version)
        assert fingerprint is not None
        return Attestation(
            engine=engine,
            boot=boot,
            engine_version="0.32.0",
            dtype="float32",
            base=self.base,
            version=version,
            fingerprint=fingerprint,
            contract=manifest.contract.digest,
            own_distance=1e-6 if passed else 0.4,
            nearest=Nearest(what="base", distance=0.5),
            strength="exact" if passed else "failed",
            passed=passed,
            reason="made up",
            observed_at="2026-01-01T00:00:00.000000Z",
        )

    def attestation(
        self, version: Digest, *, engine: str = "engine-0", boot: str = BOOT, passed: bool = True
    ) -> Envelope:
        return attested(self.finding(version, engine=engine, boot=boot, passed=passed))

    def policy(self, tenant: str = "bank_a", schema: str | None = None) -> Digest:
        policy = Policy(tenant=tenant, name="answers", json_schema=schema)
        return self.catalog.publish_policy(policy, actor="test")


def withdrawn(said: Withdrawal, by: Signer | None = None) -> Envelope:
    return (by or signer("engine")).sign(types.WITHDRAWAL, said.canonical())


def attested(finding: Attestation) -> Envelope:
    return signer("engine").sign(types.ATTESTATION, finding.canonical())


def record_head(
    seq: int, *, first: int = 0, writer: str = "router-0", digest: Digest | None = None, chain: str = "record"
) -> Envelope:
    """Over the records ``first`` to ``seq`` of a made-up chain."""
    head = RecordHead(
        writer=writer,
        seq=seq,
        digest=digest or Digest.of(f"{chain} {seq}".encode()),
        at="2026-01-01T00:00:00.000000Z",
        first=first,
        root=Digest.of(b"their root"),
        after=Digest.of(f"{chain} {first - 1}".encode()) if first else genesis(writer),
    )
    return signer("router").sign(types.RECORD_HEAD, head.canonical())


def route(policy: Digest, *, name: str = "default", when: dict[str, str] | None = None) -> Route:
    return Route(
        tenant="bank_a", name=name, model="assistant", when=when or {}, adapter="assistant", policy=policy
    )


def open_world(
    folder: Path,
    *,
    store: str | None = None,
    blobs: BlobStore | None = None,
    clock: ManualClock | None = None,
    filled: bool = False,
    max_rank: int = 64,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> World:
    """Close ``database`` in the end.

    ``store``: address of its database, default SQLite in ``folder``; ``filled``: that holds a world already.
    """
    address = store or str(folder / "registry.db")
    database = connect(address)
    upgrade(database)
    kept = blobs if blobs is not None else InMemoryBlobs()
    catalog = LocalCatalog(
        database=database,
        blobs=kept,
        signer=signer("log"),
        clock=clock or ManualClock(),
        max_rank=max_rank,
        entropy=entropy,
    )
    base, contract = tiny_base()
    if not filled:
        for role in ("log", "trainer", "release", "engine", "router"):
            catalog.trust(signer(role).public, actor="test")
        catalog.register_base(base, contract, actor="test")
        for tenant in ("bank_a", "retail_b"):
            catalog.create_tenant(Tenant(id=tenant, display_name=tenant.title()), actor="test")
    return World(folder, address, database, kept, catalog, base.identity())
