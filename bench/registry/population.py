"""A registry of any size, filled through the real ledger and the real projection.

Every entry is hashed into the log, signed over and projected as the control plane would do it. Left out is
what comes before an entry is written (reading the adapter's bytes, asking the gate), and a transaction has a
thousand entries instead of one, so that building does not measure the disk's fsync.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from registry import keys
from registry.canonical import Document
from registry.catalog import projection
from registry.catalog.change import changing
from registry.clock import ManualClock
from registry.digests import Digest
from registry.fingerprint import Attestation, Nearest
from registry.manifests import BlobRef, LoraShape, Manifest, Provenance
from registry.models import AliasState, DeclaredHeader, EngineState, Key, Policy, Role, Route, Routing, Tenant
from registry.signing.types import ATTESTATION
from registry.store.port import Store
from tests.support.adapters import tiny_base
from tests.support.registries import signer

BASE, CONTRACT = tiny_base()
_TOGETHER = 1000
"""Entries a transaction."""
_KEYS = (Role.INFERENCE, Role.TENANT_ADMIN)

Written = tuple[str, str, dict[str, Any]]
"""Kind, subject, body."""


@dataclass(frozen=True, slots=True)
class Size:
    tenants: int = 10_000
    versions: int = 50_000
    each: int = 4
    """Versions of a tenant's one adapter; the first tenant has all that is left over, in one deep adapter and
    in as many adapters as that has versions, so that there are long lists to page through."""
    engines: int = 20
    slots_each: int = 50

    @property
    def deep(self) -> int:
        return (self.versions - self.each * self.tenants) // 2


def fill(store: Store, size: Size, progress: Callable[[int], None] = lambda _: None) -> int:
    """Returns the number of entries."""
    change_by = changing(store, signer=signer("log"), clock=ManualClock())
    entries, done = _entries(size), 0
    while batch := list(islice(entries, _TOGETHER)):
        with change_by("bench") as change:
            for kind, subject, body in batch:
                change.write(kind, subject, body)
        done += len(batch)
        progress(done)
    return done


def tenant_name(number: int) -> str:
    return f"tenant-{number:05d}"


def key_of(tenant: int, which: int = 0) -> tuple[str, str]:
    """(id, secret) of its inference key."""
    return _mint(tenant, which)


def version_of(tenant: int, number: int) -> Digest:
    return _manifest(tenant, number).identity()


def _entries(size: Size) -> Iterator[Written]:
    for role in ("log", "engine"):
        key = signer(role).public
        yield projection.SIGNER_TRUSTED, key.id, {"signer": _json(key)}
    body = {"base": _json(BASE), "contract": _json(CONTRACT)}
    yield projection.BASE_REGISTERED, str(BASE.identity()), body
    for tenant in range(size.tenants):
        yield from _of_tenant(tenant, size)
    for engine in range(size.engines):
        yield from _of_engine(engine, size)


def _of_tenant(number: int, size: Size) -> Iterator[Written]:
    name = tenant_name(number)
    tenant = Tenant(id=name, display_name=f"Tenant {number}")
    yield projection.TENANT_CREATED, name, {"tenant": _json(tenant)}
    for which, role in enumerate(_KEYS):
        identity, secret = _mint(number, which)
        key = Key(id=identity, tenant=name, role=role, secret_hash=Digest.of(secret.encode()))
        yield projection.KEY_ISSUED, identity, {"key": _json(key)}
    policy = Policy(tenant=name, name="house", json_schema=_schema(number))
    yield projection.POLICY_PUBLISHED, str(policy.identity()), {"policy": _json(policy)}
    yield projection.ROUTING_PUBLISHED, name, {"routing": _json(_routing(name, policy.identity()))}
    for version in range(size.each + (size.deep if number == 0 else 0)):
        yield _pushed(_manifest(number, version))
    for adapter in range(size.deep if number == 0 else 0):
        yield _pushed(_manifest(number, 0, adapter=f"adapter-{adapter:05d}"))
    alias = AliasState(
        tenant=name,
        adapter="assistant",
        alias="live",
        version=version_of(number, size.each - 1),
        epoch=1,
    )
    yield projection.ALIAS_MOVED, f"{name}/assistant:live", {"alias": _json(alias)}


def _of_engine(number: int, size: Size) -> Iterator[Written]:
    engine = EngineState(
        engine=f"engine-{number}",
        boot="boot-0001",
        url=f"http://engine-{number}:8001",
        base=BASE.identity(),
        engine_version="0.32.0",
        dtype="float32",
        max_loras=size.slots_each,
    )
    yield projection.ENGINE_ANNOUNCED, f"{engine.engine}/{engine.boot}", {"engine": _json(engine)}
    for slot in range(size.slots_each):
        tenant = (number * size.slots_each + slot) % size.tenants
        found = Attestation(
            engine=engine.engine,
            boot=engine.boot,
            engine_version=engine.engine_version,
            dtype=engine.dtype,
            base=engine.base,
            version=version_of(tenant, size.each - 1),
            fingerprint=Digest.of(b"fingerprint"),
            contract=Digest.of(b"contract"),
            own_distance=1e-6,
            nearest=Nearest(what="base", distance=0.5),
            strength="exact",
            passed=True,
            reason="made up",
            observed_at="2026-01-01T00:00:00.000000Z",
        )
        envelope = signer("engine").sign(ATTESTATION, found.canonical())
        yield projection.ENGINE_ATTESTED, str(envelope.identity()), {"envelope": _json(envelope)}


def _routing(tenant: str, policy: Digest) -> Routing:
    header = DeclaredHeader(name="x-policy-version", values=("v1", "v2"))
    common = {"tenant": tenant, "model": "assistant", "adapter": "assistant", "policy": policy}
    routes = (
        Route(**common, name="default"),  # type: ignore[arg-type]
        Route(**common, name="v2", when={"x-policy-version": "v2"}),  # type: ignore[arg-type]
    )
    return Routing(tenant=tenant, revision=1, headers=(header,), routes=routes)


def _schema(tenant: int) -> str:
    """Of the size of the demo's policies, about 700 bytes; each tenant's is its own."""
    codes = [f"reason-{tenant}-{number}" for number in range(12)]
    properties = {
        "decision": {"type": "string", "enum": ["approve", "review", "reject"]},
        "amount": {"type": "number", "minimum": 0, "maximum": 1_000_000},
        "currency": {"type": "string", "enum": ["EUR", "USD", "GBP", "CHF"]},
        "reasons": {"type": "array", "items": {"type": "string", "enum": codes}, "maxItems": 4},
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return orjson.dumps(schema).decode()


def _pushed(manifest: Manifest) -> Written:
    return projection.VERSION_PUSHED, str(manifest.identity()), {"manifest": _json(manifest)}


def _manifest(tenant: int, number: int, *, adapter: str = "assistant") -> Manifest:
    mark = f"{tenant}/{adapter}/{number}".encode()
    return Manifest(
        tenant=tenant_name(tenant),
        adapter=adapter,
        base=BASE.identity(),
        lora=LoraShape(rank=16, alpha=32, targets=("down_proj", "q_proj", "v_proj")),
        files=(
            BlobRef(path="adapter_config.json", digest=Digest.of(b"config " + mark), size=700),
            BlobRef(path="adapter_model.safetensors", digest=Digest.of(b"weights " + mark), size=500_000),
        ),
        contract=BlobRef(path="contract.json", digest=Digest.of(b"contract"), size=4000),
        fingerprint=BlobRef(path="fingerprint.json", digest=Digest.of(b"fingerprint " + mark), size=9000),
        provenance=Provenance(method="upload"),
    )


def _mint(tenant: int, which: int) -> tuple[str, str]:
    return keys.mint(lambda size: (tenant * 10 + which).to_bytes(size, "big"))


def _json(document: Document) -> dict[str, Any]:
    return document.model_dump(mode="json")
