"""Two tenants with something of everything, and what can be told apart of them afterwards."""

import base64
import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from starlette.testclient import TestClient

from registry.blobs.memory import InMemoryBlobs, InMemoryShelf
from registry.blobs.uploads import Uploads
from registry.clock import ManualClock
from registry.digests import Digest
from registry.models import Policy, Role, Route
from registry.names import AdapterName
from registry.promotions import Protection
from registry.signing import types
from registry.signing.envelope import Envelope
from registry.usage import UsageBatch, UsageLine
from server.api.app import create_app
from server.api.control import Control
from tests.support.adapters import tiny_fingerprint
from tests.support.control import SERVICE_TOKEN
from tests.support.drawn_requests import Drawn, Pool
from tests.support.registries import GATE, World, open_world, signer

MARKS: Final = {"bank_a": "okapi", "retail_b": "zebra"}
"""Stands in all that only the tenant itself may see: names, labels, prompts."""
TENANT_ROLES: Final = (Role.TENANT_ADMIN, Role.TRAINER, Role.INFERENCE)
UNKNOWN: Final = "sha256:" + "0123456789abcdef" * 4

_TENANT: Final = "tenant = :tenant"
_BY_TENANT: Final = {
    "aliases": _TENANT, "entries": _TENANT, "keys": _TENANT, "policies": _TENANT, "proposals": _TENANT,
    "preparations": _TENANT, "protections": _TENANT, "routes": _TENANT, "routings": _TENANT,
    "signatures": _TENANT,
    "records": _TENANT, "usage": _TENANT, "versions": _TENANT,
    "tenants": "id = :tenant",
    "reports": "version IN (SELECT digest FROM versions WHERE tenant = :tenant)",
    "slots": "version IN (SELECT digest FROM versions WHERE tenant = :tenant)",
    "answers": "actor IN (SELECT 'key:' || id FROM keys WHERE tenant = :tenant)",
}  # fmt: skip
_OF_PLATFORM: Final = {
    "bases": "1", "engines": "1", "signers": "1", "record_heads": "1", "usage_writers": "1",
    "counts": "1",
    "keys": "tenant IS NULL", "entries": "tenant IS NULL", "records": "tenant IS NULL",
}  # fmt: skip
_OF_NOBODY: Final = {"alembic_version", "frontier", "heads", "nodes", "tip_nodes", "tips"}
"""The log's own structure, which grows with every change of anybody's."""
_ID: Final = re.compile(r"sha256:[0-9a-f]{64}|\b[0-9a-f]{16}\b")

Dump = dict[str, list[tuple[object, ...]]]


@dataclass
class TwoTenants:
    world: World
    shelf: InMemoryShelf
    client: TestClient
    secrets: dict[tuple[str, str], str]
    """(role, tenant) -> key."""

    def headers(self, role: str, tenant: str) -> dict[str, str]:
        if role == "nobody":
            return {}
        secret = SERVICE_TOKEN if role == "service" else self.secrets[role, tenant]
        return {"Authorization": f"Bearer {secret}"}

    def send(self, drawn: Drawn, role: str, tenant: str) -> Any:
        return self.client.request(
            drawn.operation.method,
            drawn.path,
            params=dict(drawn.query),
            headers=dict(drawn.headers) | self.headers(role, tenant),
            **drawn.content,
        )

    def dump(self, tenant: str | None) -> Dump:
        """Every row that is this tenant's, or the platform's own."""
        wanted = _OF_PLATFORM if tenant is None else _BY_TENANT
        connection = sqlite3.connect(self.world.file)
        try:
            tables = {
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            unsaid = tables - set(_BY_TENANT) - set(_OF_PLATFORM) - _OF_NOBODY
            assert not unsaid, f"say here whose the rows of {unsaid} are"
            rows = {
                table: connection.execute(
                    f"SELECT * FROM {table} WHERE {where} ORDER BY 1, 2", {"tenant": tenant}
                ).fetchall()
                for table, where in wanted.items()
            }
        finally:
            connection.close()
        if tenant is not None:
            folders = (f"uploads/{tenant}", f"claims/{tenant}")
            rows["shelf"] = [(piece.name,) for folder in folders for piece in self.shelf.list(folder)]
        return rows

    def ids(self, tenant: str) -> set[str]:
        """Digests and ids that are this tenant's and nobody else's."""
        others = [self.dump(other) for other in (None, *MARKS) if other != tenant]
        return _ids(self.dump(tenant)) - {known for other in others for known in _ids(other)} - {UNKNOWN}


def readable(answer: Any) -> str:
    """All that an answer says, signed payloads unpacked."""
    said = [answer.text, str(dict(answer.headers))]
    waiting: list[Any] = []
    for line in answer.text.splitlines():
        try:
            waiting.append(json.loads(line))
        except ValueError:
            continue
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(payload := value.get("payload"), str):
                said.append(base64.b64decode(payload + "==").decode("utf-8", "replace"))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return "\n".join(said)


def _ids(dump: Dump) -> set[str]:
    return set(_ID.findall(str(dump)))


@contextmanager
def two_tenants() -> Iterator[TwoTenants]:
    """A fresh copy each time."""
    folder, keys, blobs = _template()
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(folder / "registry.db", copy)
        kept, clock = InMemoryBlobs(), ManualClock()
        for data in blobs:
            kept.put(_stream(data))
        shelf = InMemoryShelf(clock)
        world = open_world(Path(copy), blobs=kept, clock=clock, filled=True)
        uploads = Uploads(shelf, kept)
        for tenant, mark in MARKS.items():
            data = f"{mark} sent this".encode()
            uploads.whole(tenant, Digest.of(data), _stream(data))
            uploads.begin(tenant, Digest.of(data * 2), 2 * len(data))
        control = Control(
            catalog=world.catalog, blobs=kept, uploads=uploads, service_token=SERVICE_TOKEN, clock=clock
        )
        try:
            with TestClient(create_app(control), raise_server_exceptions=False) as client:
                yield TwoTenants(world, shelf, client, dict(keys))
        finally:
            world.database.close()


@cache
def _template() -> tuple[Path, dict[tuple[str, str], str], list[bytes]]:
    folder = Path(tempfile.mkdtemp(prefix="tenon-two-tenants-"))
    blobs = InMemoryBlobs()
    world = open_world(folder, blobs=blobs)
    keys: dict[tuple[str, str], str] = {}
    _, platform = world.catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="test")
    for tenant, mark in MARKS.items():
        keys["platform_admin", tenant] = platform
        _furnish(world, tenant, mark, keys)
    world.catalog.announce(world.engine(), actor="test")
    world.database.close()
    return folder, keys, [blobs.read(digest) for digest in blobs.digests()]


def _furnish(world: World, tenant: str, mark: str, keys: dict[tuple[str, str], str]) -> None:
    catalog = world.catalog
    seed = 10 * (1 + list(MARKS).index(tenant))
    catalog.rename_tenant(tenant, f"The {mark} company", actor="test")
    for role in TENANT_ROLES:
        _, keys[role, tenant] = catalog.issue_key(tenant, role=role, label=f"{mark}-{role}", actor="test")
        catalog.issue_key(tenant, role=role, label=f"{mark} spare", actor="test")
    for adapter in ("assistant", mark):
        name = AdapterName(tenant, adapter)
        for number in range(2):
            version = world.evaluated(name, seed=seed + number)
            catalog.promote(name, version, gate=GATE, actor="test")
        envelope = signer("trainer").sign(types.MANIFEST, catalog.manifest(version).canonical())
        catalog.sign_version(version, envelope, actor="test")
    lines = (
        UsageLine(
            tenant=tenant, adapter="assistant", version=version_, day="2026-01-01",
            requests=seed, prompt_tokens=seed, completion_tokens=seed,
        )
        for version_ in [catalog.versions(AdapterName(tenant, "assistant"))[0].version]
    )  # fmt: skip
    catalog.count_usage(UsageBatch(writer=mark, seq=0, lines=tuple(lines)))
    policy = catalog.publish_policy(
        Policy(tenant=tenant, name=mark, system_prompt=f"You are a {mark}"), actor="test"
    )
    route = Route(tenant=tenant, name=mark, model=mark, adapter="assistant", policy=policy)
    catalog.publish_routing(tenant, routes=[route], actor="test")
    catalog.protect(Protection(tenant=tenant, alias="gated", approvals=1), actor="test")
    for alias in ("gated", mark):
        catalog.protect(Protection(tenant=tenant, alias=alias, approvals=1), actor="test")
        catalog.propose(
            AdapterName(tenant, "assistant"),
            catalog.versions(AdapterName(tenant, "assistant"))[0].version,
            gate=GATE,
            alias=alias,
            actor=f"key:{keys[Role.TENANT_ADMIN, tenant].split('_')[1]}",
        )


def pool(bench: TwoTenants) -> Pool:
    """What both tenants have and an outsider might guess: everything but what carries a mark."""
    catalog = bench.world.catalog
    versions: list[str] = []
    digests: list[str] = [UNKNOWN, bench.world.base]
    key_ids, proposals = ["0" * 16], ["0" * 16]
    envelopes: list[Envelope] = []
    for tenant, mark in MARKS.items():
        name = AdapterName(tenant, "assistant")
        found = [item.version for item in catalog.versions(name)]
        versions += found
        envelopes += [each for version in found for each in catalog.report_envelopes(version)]
        envelopes += [each for version in found for each in catalog.signatures(version)]
        digests += [policy.identity() for policy in catalog.policies(tenant)]
        digests += [each for version in found if (each := catalog.fingerprint_digest(version))]
        digests += [file.digest for version in found for file in catalog.manifest(version).files]
        digests.append(Digest.of(f"{mark} sent this".encode()))
        key_ids += [key.id for key in catalog.keys(tenant) if "spare" in key.label]
        proposals += [each.id for each in catalog.proposals(tenant) if each.alias == "gated"]
    _, base, contract = catalog.base(bench.world.base)
    return Pool(
        named={
            "tenant": [*MARKS, "nobody_x"],
            "adapter": ["assistant", "nothing"],
            "alias": ["live", "gated", "nothing"],
            "version": [*versions, UNKNOWN],
            "versions": [*versions, UNKNOWN],
            "key": key_ids,
            "proposal": proposals,
            "engine": ["engine-0", "nothing"],
            "ref": ["tiny", bench.world.base, "nothing"],
            "first_day": ["2026-01-01"],
            "last_day": ["2026-01-31"],
            "cursor": ["nothing"],
        },
        digests=[*digests, *versions],
        names=["assistant", "nothing"],
        documents={
            "Envelope": [each.model_dump(mode="json") for each in envelopes],
            "Fingerprint": [
                tiny_fingerprint(bench.world.base, seed=seed).model_dump(mode="json") for seed in (10, 20)
            ],
            "Base": [base.model_dump(mode="json")],
            "Contract": [contract.model_dump(mode="json")],
            "GatePolicy": [GATE.model_dump(mode="json")],
            "Provenance": [{"method": "upload"}, {"method": "upload", "parent": versions[0]}],
            "PublicKey": [signer("trainer", 7).public.model_dump(mode="json")],
        },
    )


def _stream(data: bytes) -> Any:
    from io import BytesIO

    return BytesIO(data)
