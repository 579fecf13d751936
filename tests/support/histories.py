"""Random histories of a registry: entries as the catalog writes them, without the rules that it asks first.

They go through the real ledger and projection, so what the tables then hold is what they would hold.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from registry.canonical import Document
from registry.catalog import feed, projection
from registry.catalog.change import Change, changing
from registry.clock import ManualClock, stamp
from registry.digests import Digest
from registry.feed import Delta, Snapshot
from registry.fingerprint import Attestation, Nearest
from registry.manifests import BlobRef, LoraShape, Manifest, Provenance
from registry.models import (
    AliasState,
    Canary,
    DeclaredHeader,
    EngineState,
    Former,
    Key,
    Policy,
    Role,
    Route,
    Routing,
    Tenant,
)
from registry.promotions import Preparation
from registry.signing.envelope import Envelope
from registry.signing.types import ATTESTATION
from registry.store.database import Database, upgrade
from tests.support.adapters import tiny_base
from tests.support.registries import signer

TENANTS = ("bank_a", "retail_b", "saas_c")
ADAPTERS = ("desk", "other")
ENGINES = ("engine-0", "engine-1")
BOOTS = ("boot-0001", "boot-0002")
BASE, CONTRACT = tiny_base()
NOW = ManualClock().now()

Write = Callable[[str, str, dict[str, Any]], object]
Step = Callable[["History", Write], None]


@dataclass
class History:
    """What happened so far, as far as later steps need it."""

    database: Database
    versions: list[Manifest]
    revoked: set[Digest]
    policies: dict[str, Digest]
    clock: ManualClock
    boots: dict[str, str] = field(default_factory=dict)
    made: int = 0

    @contextmanager
    def changing(self) -> Iterator[Change]:
        with changing(self.database, signer=signer("log"), clock=self.clock)("test") as change:
            yield change

    def take(self, steps: list[Step]) -> None:
        """All of ``steps`` in one transaction."""
        with self.changing() as change:
            for step in steps:
                step(self, change.write)

    def snapshot(self) -> Snapshot:
        with self.database.read() as rows:
            return feed.snapshot(rows)

    def changes(self, after: int, root: Digest | None = None) -> Snapshot | Delta | None:
        with self.database.read() as rows:
            return feed.changes(rows, after, root)

    def told(self, after: int, root: Digest | None = None) -> bytes | None:
        with self.database.read() as rows:
            return feed.told(rows, after, root)

    def number(self) -> int:
        self.made += 1
        return self.made


@contextmanager
def begun() -> Iterator[History]:
    """A registry that trusts its signers and knows the tenants and one base; gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "registry.db"
        file.write_bytes(_beginning())
        with Database(file, busy_timeout=20) as database:
            yield History(database, [], set(), {}, ManualClock())


@cache
def _beginning() -> bytes:
    """Of a database file: migrating each anew takes most of a test's time."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "registry.db"
        with Database(file) as database:
            upgrade(database)
            _begin(History(database, [], set(), {}, ManualClock()))
        return file.read_bytes()


def _begin(history: History) -> None:
    with history.changing() as change:
        for role in ("log", "engine"):
            key = signer(role).public
            change.write(projection.SIGNER_TRUSTED, key.id, {"signer": _json(key)})
        body = {"base": _json(BASE), "contract": _json(CONTRACT)}
        change.write(projection.BASE_REGISTERED, str(BASE.identity()), body)
        for tenant in TENANTS:
            named = Tenant(id=tenant, display_name=tenant)
            change.write(projection.TENANT_CREATED, tenant, {"tenant": _json(named)})


def steps() -> st.SearchStrategy[Step]:
    """One change of any kind that the feed carries, or one that it does not."""
    tenants, adapters = st.sampled_from(TENANTS), st.sampled_from(ADAPTERS)
    number = st.integers(0, 5)
    where = st.sampled_from([ENGINES, ENGINES[:1], ENGINES[1:]])
    return st.one_of(
        st.builds(change_tenant, tenants, st.booleans()),
        st.builds(_key, st.none() | tenants, st.sampled_from(Role), number, st.booleans(), st.booleans()),
        st.builds(_policy, tenants, number),
        st.builds(_routing, tenants, st.lists(number, max_size=3, unique=True)),
        st.builds(_version, tenants, adapters),
        st.builds(_revoke, number),
        st.builds(_alias, tenants, adapters, st.lists(number, max_size=3, unique=True), st.booleans()),
        st.builds(_prepare, tenants, adapters, number),
        st.builds(_announce, st.sampled_from(ENGINES), st.sampled_from(BOOTS), st.booleans()),
        st.builds(_attest, where, st.integers(0, 1), st.just(True), st.just(False)),
        st.builds(_attest, where, st.integers(0, 1), st.booleans(), st.booleans()),
        st.builds(_base_again),
    )


def change_tenant(tenant: str, suspended: bool) -> Step:
    def step(history: History, write: Write) -> None:
        changed = Tenant(id=tenant, display_name=f"{tenant} {history.number()}", suspended=suspended)
        write(projection.TENANT_CHANGED, tenant, {"tenant": _json(changed)})

    return step


def _key(tenant: str | None, role: Role, number: int, revoked: bool, expires: bool) -> Step:
    def step(history: History, write: Write) -> None:
        identity = f"{tenant or 'platform'}-{number}"
        key = Key(
            id=identity,
            tenant=tenant,
            role=role,
            secret_hash=Digest.of(identity.encode()),
            revoked=revoked,
            expires_at=stamp(NOW) if expires else None,
            label="made up",
        )
        write(projection.KEY_ISSUED, identity, {"key": _json(key)})

    return step


def _policy(tenant: str, number: int) -> Step:
    def step(history: History, write: Write) -> None:
        policy = Policy(tenant=tenant, name="house", system_prompt=f"{number} {history.number()}")
        history.policies[tenant] = policy.identity()
        write(projection.POLICY_PUBLISHED, str(policy.identity()), {"policy": _json(policy)})

    return step


def _routing(tenant: str, numbers: list[int]) -> Step:
    def step(history: History, write: Write) -> None:
        if tenant not in history.policies:
            _policy(tenant, 0)(history, write)
        routes = tuple(
            Route(
                tenant=tenant,
                name=f"r{number}",
                model="assistant",
                when={"x-policy-version": f"v{number}"} if number else {},
                adapter=ADAPTERS[number % 2],
                policy=history.policies[tenant],
            )
            for number in numbers
        )
        header = DeclaredHeader(name="x-policy-version", values=tuple(f"v{n}" for n in range(6)))
        routing = Routing(tenant=tenant, revision=history.number(), headers=(header,), routes=routes)
        write(projection.ROUTING_PUBLISHED, tenant, {"routing": _json(routing)})

    return step


def _version(tenant: str, adapter: str) -> Step:
    def step(history: History, write: Write) -> None:
        blob = BlobRef(path="adapter_model.safetensors", digest=Digest.of(b"%d" % history.number()), size=1)
        manifest = Manifest(
            tenant=tenant,
            adapter=adapter,
            base=BASE.identity(),
            lora=LoraShape(rank=4, alpha=8, targets=("q_proj",)),
            files=(blob,),
            contract=blob,
            fingerprint=None,
            provenance=Provenance(method="upload"),
        )
        history.versions.append(manifest)
        write(projection.VERSION_PUSHED, str(manifest.identity()), {"manifest": _json(manifest)})

    return step


def _revoke(number: int) -> Step:
    def step(history: History, write: Write) -> None:
        if history.versions:
            version = history.versions[-1 - number % len(history.versions)].identity()
            history.revoked.add(version)
            write(projection.VERSION_REVOKED, str(version), {"reason": "made up"})

    return step


def _alias(tenant: str, adapter: str, numbers: list[int], expires: bool) -> Step:
    def step(history: History, write: Write) -> None:
        mine = [found for found in history.versions if (found.tenant, found.adapter) == (tenant, adapter)]
        chosen = list(dict.fromkeys(mine[number % len(mine)].identity() for number in numbers if mine))
        if chosen:
            alias = AliasState(
                tenant=tenant,
                adapter=adapter,
                alias="live",
                version=chosen[0],
                epoch=history.number(),
                canaries=tuple(Canary(version=version, percent=12.5) for version in chosen[1:2]),
                shadows=tuple(chosen[2:]),
                expires_at=stamp(NOW) if expires else None,
                former=_former(chosen[-1], history.made) if history.made % 3 == 2 else None,
            )
            write(projection.ALIAS_MOVED, f"{tenant}/{adapter}:live", {"alias": _json(alias)})

    return step


def _former(version: Digest, made: int) -> Former:
    """Some as they were written before anybody noted since and until when."""
    if made % 2:
        return Former(version=version, epoch=made - 1)
    return Former(version=version, epoch=made - 1, since=1, until=stamp(NOW))


def _prepare(tenant: str, adapter: str, number: int) -> Step:
    def step(history: History, write: Write) -> None:
        mine = [found for found in history.versions if (found.tenant, found.adapter) == (tenant, adapter)]
        if mine:
            preparation = Preparation(
                tenant=tenant,
                adapter=adapter,
                alias="live",
                version=mine[number % len(mine)].identity(),
                epoch=history.number(),
                until=stamp(NOW),
            )
            body = {"preparation": _json(preparation)}
            write(projection.PROMOTION_PREPARED, f"{tenant}/{adapter}:live", body)

    return step


def _announce(engine: str, boot: str, up: bool) -> Step:
    def step(history: History, write: Write) -> None:
        state = EngineState(
            engine=engine,
            boot=boot,
            url=f"http://{engine}:8001",
            base=BASE.identity(),
            engine_version="0.32.0",
            dtype="float32",
            max_loras=4,
            up=up,
        )
        history.boots[engine] = boot
        write(projection.ENGINE_ANNOUNCED, f"{engine}/{boot}", {"engine": _json(state)})

    return step


def _attest(engines: tuple[str, ...], number: int, passed: bool, stale: bool) -> Step:
    """About the same version on each of the engines; ``stale``: about a boot that is no longer theirs."""

    def step(history: History, write: Write) -> None:
        live = [found for found in history.versions if found.identity() not in history.revoked]
        for engine in engines if live else ():
            if engine not in history.boots:
                _announce(engine, BOOTS[0], True)(history, write)
            boot = "boot-before" if stale else history.boots[engine]
            envelope = _attestation(history, live[number % len(live)], engine, boot, passed=passed)
            write(projection.ENGINE_ATTESTED, str(envelope.identity()), {"envelope": _json(envelope)})

    return step


def _attestation(history: History, version: Manifest, engine: str, boot: str, *, passed: bool) -> Envelope:
    found = Attestation(
        engine=engine,
        boot=boot,
        engine_version="0.32.0",
        dtype="float32",
        base=BASE.identity(),
        version=version.identity(),
        fingerprint=Digest.of(b"fingerprint"),
        contract=Digest.of(b"contract"),
        own_distance=1e-6,
        nearest=Nearest(what="base", distance=0.5),
        strength="exact" if passed else "failed",
        passed=passed,
        reason=f"made up {history.number()}",
        observed_at=stamp(NOW),
    )
    return signer("engine").sign(ATTESTATION, found.canonical())


def _base_again() -> Step:
    def step(history: History, write: Write) -> None:
        body = {"base": _json(BASE), "contract": _json(CONTRACT)}
        write(projection.BASE_REGISTERED, str(BASE.identity()), body)

    return step


def _json(document: Document) -> dict[str, Any]:
    return document.model_dump(mode="json")
