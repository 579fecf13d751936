"""Tenon's whole stack in a temporary workspace: control plane, vLLM, router; asked with tenants' keys."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from registry.bases import describe
from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.evidence import GatePolicy, Metric, Report, Rule
from registry.fingerprint import Fingerprint
from registry.intake import inspect
from registry.manifests import Provenance
from registry.models import Base, Policy, Role, Route, Tenant
from registry.names import AdapterName
from registry.promotions import Readiness
from registry.signing.types import REPORT
from server.assembly import bases, stack, uploads
from server.assembly.awaiting import Patience
from server.assembly.catalog import initialise, open_catalog, signer
from server.assembly.promoting import Move, promote_or_propose
from server.mixup import lora, moving, ours_checks, suite
from server.mixup import report as reports
from server.mixup.ground import Ground, Plan, Voice
from server.mixup.loading import Loader
from server.mixup.nodes import Node, nodes_of
from server.mixup.starting import Recipe, free_port
from server.mixup.suite import Say
from server.mixup.versions import Known, others
from server.mixup.wire import Wire
from server.testing.fake_model import fake_contract, fake_fingerprint, weights_of
from server.workspace import Workspace

MODEL: Final = "assistant"
TWINS: Final = ("twin-a", "twin-b")
_ACTOR: Final = "mixup"
_GATE: Final = GatePolicy(rules=(Rule(metric="told_apart", at_least=0.5),))
_VERSIONS: Final = 2


@dataclass
class Stack:
    """What the checks do to it, each as a person would: through the catalog and the router."""

    workspace: Workspace
    catalog: LocalCatalog
    base: Base
    folder: Path
    shapes: lora.Shapes
    fingerprint: Callable[[Path], Fingerprint]
    patience: float = 60.0
    known: dict[str, Known] = field(default_factory=dict)
    """By the version's digest, as the router says it."""
    nodes: tuple[Node, ...] = ()
    """While it runs."""

    def push(self, tenant: str, weights: str, folder: Path) -> Known:
        """Raises IntakeRefused."""
        digest = self.base.identity()
        name = AdapterName(tenant, MODEL)
        version = self.catalog.push(
            name,
            folder,
            base=digest,
            fingerprint=self.fingerprint(folder),
            provenance=Provenance(method="upload"),
            actor=_ACTOR,
        )
        told = Metric(value=1.0, n=1, stderr=0.0)
        report = Report(
            tenant=tenant,
            adapter=MODEL,
            version=version,
            base=digest,
            suite=Digest.of(b"mixup"),
            metrics={"told_apart": told},
            baseline={"told_apart": Metric(value=0.0, n=1, stderr=0.0)},
            adapter_active=True,
        )
        signed = signer(self.workspace, "trainer").sign(REPORT, report.canonical())
        self.catalog.file_report(signed, actor=_ACTOR)
        found = Known(version, tenant, weights, folder)
        self.known[str(version)] = found
        return found

    def promote(
        self,
        known: Known,
        *,
        wait: bool = True,
        percent: float = 100,
        shown: Callable[[Readiness], object] = lambda readiness: None,
    ) -> None:
        """``wait``: until all engines that are to hold it do; ``shown`` hears how many. Raises
        PromotionNotReady."""
        move = Move(AdapterName(known.tenant, MODEL), known.version, _GATE, "live", percent, None, None)
        patience = Patience(self.patience, shown) if wait else None
        promote_or_propose(self.catalog, move, release_key=None, patience=patience, actor=_ACTOR)

    def rollback(self, tenant: str) -> None:
        self.catalog.rollback(AdapterName(tenant, MODEL), actor=_ACTOR)

    def revoke(self, known: Known) -> None:
        self.catalog.revoke(known.version, reason="the suite's churn", actor=_ACTOR)

    def live(self, tenant: str) -> Known:
        return self.known[str(self.catalog.alias(AdapterName(tenant, MODEL)).version)]

    def come_and_go(self, ground: Ground, tenant: str, number: int) -> None:
        folder = lora.write(self.folder / "spare" / str(number), self.shapes, seed=5000 + number)
        spare = self.push(tenant, f"spare-{number}", folder)
        del self.known[str(spare.version)]
        self.revoke(spare)


async def started(recipe: Recipe, plan: Plan, *, say: Say) -> reports.Report:
    """Raises StartFailed, and what the suite raises."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tenon-mixup-") as scratch:
        root = Path(scratch)
        say("making tenants and their adapters")
        ours, voices = await asyncio.to_thread(_made, root, recipe, plan)
        async with _running(ours, recipe, say) as url, Wire(url, key=next(iter(voices.values())).key) as wire:
            ground = Ground(
                wire=wire,
                loader=Loader(wire, "none"),
                plan=plan,
                folder=root,
                voices=voices,
                twins=TWINS,
            )
            say("recording what each version answers while nothing else is asked")
            await _record(ground, ours)
            findings = await suite.run(
                ground, say=say, storms=ours_checks.storms(ours), checks=ours_checks.checks(ours)
            )
            return reports.Report(
                target="ours",
                seed=plan.seed,
                findings=tuple(findings),
                seconds=time.monotonic() - began,
                noise=ground.references.noise,
                gap=ground.references.nearest(),
                server={
                    "version": ours.catalog.engines()[0].engine_version,
                    "device": recipe.device,
                    "engines": str(recipe.engines),
                    "guarded": str(all(each.guarded for each in ours.catalog.engines())).lower(),
                },
            )


def _made(root: Path, recipe: Recipe, plan: Plan) -> tuple[Stack, dict[str, Voice]]:
    workspace = initialise(root / "workspace")
    catalog = open_catalog(workspace)
    base, fingerprint = (_fakes if recipe.fake else registered)(workspace, catalog, recipe.base)
    shapes = lora.Shapes.of(recipe.base)
    ours = Stack(workspace, catalog, base, root, shapes, fingerprint)
    tenants = [f"tenant-{at}" for at in range(plan.slots + 1)]
    voices = {}
    for tenant in (*tenants, *TWINS):
        voices[tenant] = admitted(catalog, tenant)
    for at, tenant in enumerate(tenants):
        for number in reversed(range(_VERSIONS)):  # the first one is live at the end
            weights = f"{tenant}/{number}"
            seed = 1000 * plan.seed + 10 * at + number
            folder = lora.write(root / "weights" / tenant / str(number), shapes, seed=seed)
            ours.promote(ours.push(tenant, weights, folder), wait=False)
    twin = lora.write(root / "weights" / "twin", shapes, seed=1000 * plan.seed + 999)
    for tenant in TWINS:
        ours.promote(ours.push(tenant, "twin", twin), wait=False)
    return ours, voices


def admitted(catalog: LocalCatalog, tenant: str) -> Voice:
    """A new tenant that may ask its adapter anything."""
    catalog.create_tenant(Tenant(id=tenant, display_name=tenant), actor=_ACTOR)
    _, secret = catalog.issue_key(tenant, role=Role.INFERENCE, actor=_ACTOR)
    policy = catalog.publish_policy(Policy(tenant=tenant, name="open", tools=("*",)), actor=_ACTOR)
    route = Route.build(
        {"tenant": tenant, "name": "default", "model": MODEL, "adapter": MODEL, "policy": policy}
    )
    catalog.publish_routing(tenant, routes=(route,), actor=_ACTOR)
    return Voice(MODEL, secret)


def registered(
    workspace: Workspace, catalog: LocalCatalog, folder: Path
) -> tuple[Base, Callable[[Path], Fingerprint]]:
    digest, base = bases.register(
        workspace, catalog, name="demo", source=str(folder), revision=None, actor=_ACTOR
    )
    return base, lambda adapter: uploads.fingerprint(adapter, digest, base, folder, None)


def _fakes(
    workspace: Workspace, catalog: LocalCatalog, folder: Path
) -> tuple[Base, Callable[[Path], Fingerprint]]:
    base = describe(folder, name="demo", revision="local")
    digest = catalog.register_base(base, fake_contract(base), actor=_ACTOR)

    def fingerprint(adapter: Path) -> Fingerprint:
        inspect(adapter, base=base, max_rank=64)
        return fake_fingerprint(digest, weights_of(adapter))

    return base, fingerprint


def options(recipe: Recipe, base_name: str) -> stack.EngineOptions:
    """Certified or not: what passes here is what can be certified."""
    return stack.EngineOptions(
        base=str(recipe.base),
        base_name=base_name,
        device=recipe.device,
        dtype=recipe.dtype,
        max_loras=max(1, recipe.slots // recipe.engines),
        fake=recipe.fake,
        allow_uncertified=True,
        gpu_memory_utilization=round(0.8 / recipe.engines, 2) if recipe.device == "cuda" else None,
        heartbeat=recipe.heartbeat,
        tool_call_parser=bases.tool_call_parser(recipe.base),
    )


@asynccontextmanager
async def _running(ours: Stack, recipe: Recipe, say: Say) -> AsyncIterator[str]:
    # Not the defaults: another stack that took one while the engine starts would answer as the router.
    more = tuple((free_port(), free_port()) for _ in range(recipe.engines - 1))
    ports = stack.Ports(
        router=free_port(), control=free_port(), agent=free_port(), vllm=free_port(), more=more
    )
    running = await asyncio.to_thread(
        lambda: stack.start(
            ours.workspace,
            engine=options(recipe, ours.base.name),
            ports=ports,
            tied=True,
            progress=lambda role, doing: say(f"{role}: {doing}"),
        )
    )
    try:
        ours.nodes = nodes_of(ours.workspace, running)
        yield running.url("router")
    finally:
        await asyncio.to_thread(stack.stop, ours.workspace)


async def _record(ground: Ground, ours: Stack) -> None:
    """Every version, one after another as it is promoted; at the end the first of each tenant is live."""
    for tenant in ground.voices:
        for known in (*others(ours, tenant), ours.live(tenant)):
            if known.weights in ground.references.weights():
                ground.live[tenant] = known.weights
                await moving.shown(ground, known)
                continue
            await asyncio.to_thread(ours.promote, known)
            await moving.shown(ground, known)
            ground.live[tenant] = known.weights
            await ground.record(tenant, known.weights)
            await ground.record_long(tenant, known.weights)
