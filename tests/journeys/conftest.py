"""The whole platform as users meet it: real processes, real HTTP, the fake engine in vLLM's place."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from registry.bases import describe
from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.evidence import GatePolicy, Metric, Report, Rule
from registry.manifests import Provenance
from registry.models import Policy, Role, Route, Tenant
from registry.names import AdapterName
from registry.signing.types import REPORT
from server.assembly import stack
from server.assembly.catalog import initialise, open_catalog, signer
from server.assembly.processes import Running
from server.demo.build_base import SHIPPED_BASE
from server.testing.fake_model import fake_contract, fake_fingerprint, weights_of
from server.workspace import Workspace
from tests.support.adapters import write_adapter

TENANTS = ("bank_a", "retail_b", "saas_c")
POLICIES = SHIPPED_BASE.parent / "policies"
GATE = GatePolicy(rules=(Rule(metric="policy", at_least=0.9),))


@dataclass
class Served:
    workspace: Workspace
    catalog: LocalCatalog
    url: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    versions: dict[str, Digest] = field(default_factory=dict)
    weights: dict[str, Digest] = field(default_factory=dict)
    running: Running | None = None


def publish(served: Served, tenant: str, folder: Path, *, seed: int) -> Digest:
    """A version with evidence behind it, live."""
    version = evaluated(served, tenant, folder, seed=seed)
    served.catalog.promote(AdapterName(tenant, "assistant"), version, gate=GATE, actor="test")
    served.versions[tenant], served.weights[tenant] = version, weights_of(folder)
    return version


def evaluated(
    served: Served, tenant: str, folder: Path, *, seed: int, on: str = "demo", adapter: str = "assistant"
) -> Digest:
    """A version with evidence behind it. ``on``: the name of its base."""
    digest, base, _ = served.catalog.base(on)
    write_adapter(folder, base, seed=seed)
    weights = weights_of(folder)
    name = AdapterName(tenant, adapter)
    version = served.catalog.push(
        name,
        folder,
        base=digest,
        fingerprint=fake_fingerprint(digest, weights),
        provenance=Provenance(method="upload"),
        actor="test",
    )
    good, bad = Metric(value=1, n=96, stderr=0), Metric(value=0, n=96, stderr=0)
    report = Report(
        tenant=tenant,
        adapter=adapter,
        version=version,
        base=digest,
        suite=Digest.of(b"suite"),
        metrics={"policy": good},
        baseline={"policy": bad},
        adapter_active=True,
    )
    envelope = signer(served.workspace, "trainer").sign(REPORT, report.canonical())
    served.catalog.file_report(envelope, actor="test")
    return version


def prepare(root: Path) -> Served:
    """A workspace with three tenants, each with a key, a policy, routes and a live version."""
    workspace = initialise(root / "workspace")
    served = Served(workspace, open_catalog(workspace))
    base = describe(SHIPPED_BASE, name="demo", revision="local")
    served.catalog.register_base(base, fake_contract(base), actor="test")
    for seed, tenant in enumerate(TENANTS):
        served.catalog.create_tenant(Tenant(id=tenant, display_name=tenant), actor="test")
        served.keys[tenant] = served.catalog.issue_key(tenant, role=Role.INFERENCE, actor="test")[1]
        publish(served, tenant, root / "adapters" / tenant, seed=seed)
        schema = (POLICIES / f"{tenant}.json").read_text()
        policy = served.catalog.publish_policy(
            Policy(tenant=tenant, name="v1", json_schema=schema), actor="test"
        )
        common = {"tenant": tenant, "adapter": "assistant", "policy": policy}
        routes = [
            Route.build({**common, "name": "default", "model": "assistant"}),
            Route.build({**common, "name": "v1", "model": "assistant", "when": {"x-policy-version": "v1"}}),
            Route.build({**common, "name": "strict", "model": "strict", "when": {"x-policy-version": "v1"}}),
        ]
        served.catalog.publish_routing(tenant, routes=routes, actor="test")
    return served


def start(served: Served) -> None:
    served.running = stack.start(
        served.workspace,
        engine=stack.EngineOptions(base=str(SHIPPED_BASE), base_name="demo", fake=True),
        ports=stack.Ports.free(),
        tied=True,
        progress=lambda _role, _doing: None,
    )
    served.url = served.running.url("router")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One running platform for all journeys that leave it as they found it."""
    world = prepare(tmp_path_factory.mktemp("journeys"))
    start(world)
    yield world
    stack.stop(world.workspace)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A platform of one's own, for journeys that break things."""
    world = prepare(tmp_path)
    start(world)
    yield world
    stack.stop(world.workspace)


def schema_of(tenant: str) -> dict[str, object]:
    schema: dict[str, object] = json.loads((POLICIES / f"{tenant}.json").read_text())
    return schema
