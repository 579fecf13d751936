"""The main job from an empty folder to three attested answers, with proof. Reads top to bottom."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.errors import WorkspaceNotFound
from registry.models import Policy, Role, Route, Tenant
from server.assembly import bases, stack, training
from server.assembly.audit import audit
from server.assembly.catalog import initialise, open_catalog, upgrade_workspace
from server.assembly.receipts import verify_receipt_file
from server.cli import render
from server.cli.progress import bars
from server.demo import ask, corpus, page
from server.demo.data import write_data
from server.demo.errors import DemoFailed
from server.workspace import Workspace

V = TypeVar("V")
_HERE = Path(__file__).parent
_ACTOR = "demo"
_RULES = {
    "bank_a": "Bank A: every payment needs a second approval",
    "retail_b": "Retail B: simplified below 1,000, one manager above",
    "saas_c": "SaaS C: long explanations with a risk warning",
}


@dataclass
class Stopwatch:
    """Where the time went."""

    laps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def lap(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        render.note(f"\n{len(self.laps) + 1}. {what}")
        yield
        self.laps[what] = time.perf_counter() - began


def run_demo(root: Path, *, keep: bool, fresh: bool, json: bool = False) -> None:
    """``json``: what it found as one document.

    Raises DemoFailed when anything the demo promises is not so; everything started is stopped then.
    """
    clock = Stopwatch()
    with clock.lap("Workspace, base and tenants"):
        workspace = _workspace(root)
        catalog = open_catalog(workspace)
        bases.register(workspace, catalog, name="demo", source="demo", revision=None, actor=_ACTOR)
        keys = _keys(workspace, catalog)
        rows = [[tenant, _RULES[tenant], keys[tenant]] for tenant in keys]
        render.table("", ["tenant", "house rule", "API key (shown once)"], rows, stderr=True)
    with clock.lap("Train, evaluate, push and promote one adapter each"):
        trained = {tenant: _train(workspace, catalog, tenant, fresh=fresh) for tenant in corpus.TENANTS}
        for tenant in corpus.TENANTS:
            _route(catalog, tenant)
    versions = {tenant: live.version for tenant, live in trained.items()}
    with clock.lap("Start control plane, vLLM (float32 on the CPU) and router; load and attest"):
        stack.stop(workspace)
        running = stack.start(
            workspace,
            engine=stack.EngineOptions(
                base=str(_HERE / "base"),
                base_name="demo",
                tool_call_parser=bases.tool_call_parser(_HERE / "base"),
            ),
            ports=stack.Ports.free(),
            tied=not keep,
            progress=lambda role, doing: render.note(f"   {role}: {doing}"),
        )
    kept = False
    try:
        with clock.lap("Ask the same question as three tenants, and try the wrong ways in"):
            shown = _ask(workspace, catalog, running.url("router"), keys, versions)
        target = workspace.root / "demo" / "report.html"
        target.write_text(page.render(shown, _plain(trained), clock.laps), encoding="utf-8")
        if json:
            render.data(_found(shown, clock, target, running.url("router"), keys))
        else:
            _report(shown, clock, target, running.url("router"), keys)
        kept = keep
    finally:
        if not kept:
            stack.stop(workspace)
    if keep:
        render.note(f"Left running; stop with: tenon down -w {root}")


def _workspace(root: Path) -> Workspace:
    try:
        return upgrade_workspace(root)
    except WorkspaceNotFound:
        return initialise(root)


def _keys(workspace: Workspace, catalog: LocalCatalog) -> dict[corpus.Tenant, str]:
    """Create the tenants if need be, and a fresh key each: the secrets of earlier runs' keys nobody has.

    Only keys that the demo issued are revoked; those that a person issued stay.
    """
    issued = workspace.root / "demo" / "keys.json"
    mine = set(json.loads(issued.read_text())) if issued.exists() else set()
    known = {tenant.id for tenant in catalog.tenants()}
    keys, ids = {}, []
    for tenant in corpus.TENANTS:
        if tenant not in known:
            name = _RULES[tenant].partition(":")[0]
            catalog.create_tenant(Tenant(id=tenant, display_name=name), actor=_ACTOR)
        for old in catalog.keys(tenant):
            if old.id in mine and not old.revoked:
                catalog.revoke_key(old.id, actor=_ACTOR)
        key, keys[tenant] = catalog.issue_key(tenant, role=Role.INFERENCE, actor=_ACTOR)
        ids.append(key.id)
    issued.parent.mkdir(exist_ok=True)
    issued.write_text(json.dumps(ids))
    return keys


def _train(
    workspace: Workspace, catalog: LocalCatalog, tenant: corpus.Tenant, *, fresh: bool
) -> training.Live:
    recipe = write_data(workspace.root / "demo" / tenant, tenant)
    ready = training.prepare(workspace, catalog, recipe, before=partial(training.known, workspace))
    with bars(tenant) as sink:
        run = training.run(workspace, ready, sink, fresh=fresh)
    version = training.push(workspace, catalog, run, actor=_ACTOR).version
    live = training.promote(catalog, run, version, actor=_ACTOR)
    rows = training.figures(run.metrics, run.baseline)
    render.table(
        f"{tenant}/assistant on held-out requests", ["metric", "base", "adapter", "n"], rows, stderr=True
    )
    for reason in live.verdict.reasons if live.verdict else ("live already",):
        render.note(f"   gate: {reason}")
    render.note(f"   live: {version}")
    return live


def _route(catalog: LocalCatalog, tenant: corpus.Tenant) -> None:
    """The public model `assistant`: by default, and for clients that name the policy version they expect."""
    schema = (_HERE / "policies" / f"{tenant}.json").read_text()
    policy = catalog.publish_policy(Policy(tenant=tenant, name="v1", json_schema=schema), actor=_ACTOR)
    common = {"tenant": tenant, "model": ask.MODEL, "adapter": "assistant", "policy": policy}
    wanted = (
        Route.build({**common, "name": "default"}),
        Route.build({**common, "name": "v1", "when": {"x-policy-version": "v1"}}),
    )
    catalog.publish_routing(tenant, routes=wanted, actor=_ACTOR)


def _ask(
    workspace: Workspace,
    catalog: LocalCatalog,
    url: str,
    keys: dict[corpus.Tenant, str],
    versions: dict[corpus.Tenant, Digest],
) -> page.Shown:
    import jsonschema

    question = corpus.DEMO_QUESTION
    answers = [ask.ask(url, tenant=tenant, key=key, question=question) for tenant, key in keys.items()]
    for answer in answers:
        schema = json.loads((_HERE / "policies" / f"{answer.tenant}.json").read_text())
        jsonschema.validate(answer.fields, schema)
        _must(
            answer.version == versions[_known(answer.tenant)],
            f"{answer.tenant} was answered by {answer.version}",
        )
    _must(len({answer.content for answer in answers}) == len(answers), "two tenants got the same answer")
    text, reason = ask.stream(url, tenant="bank_a", key=keys["bank_a"], question=question)
    _must(reason == "stop" and json.loads(text) == answers[0].fields, "the streamed answer differs")
    attempts = ask.attempts(url, _plain(keys), _plain(versions), question)
    for attempt in attempts:
        _must(
            attempt.refused, f"{attempt.what}: {attempt.status} {attempt.code}, expected {attempt.expected}"
        )
    receipt = workspace.root / "demo" / "receipt.json"
    receipt.write_bytes(ask.receipt(url, key=keys["bank_a"], record=answers[0].record))
    proven = verify_receipt_file(receipt, trust=None, workspace=workspace).record
    _must(proven.version == versions["bank_a"], "the receipt names another version")
    checked = audit(workspace, blobs=True, records=True)
    _must(not checked.faults, f"the audit found {checked.faults}")
    slots = {slot.version: slot.attestation for slot in catalog.snapshot().slots}
    return page.Shown(
        question=question,
        answers=tuple(answers),
        attempts=tuple(attempts),
        attestations={tenant: slots[version] for tenant, version in versions.items()},
        receipt=receipt,
        record=proven,
        audit=checked,
    )


def _found(
    shown: page.Shown, clock: Stopwatch, target: Path, url: str, keys: dict[corpus.Tenant, str]
) -> dict[str, object]:
    return {
        "url": f"{url}/v1",
        "question": shown.question,
        "answers": [asdict(answer) for answer in shown.answers],
        "keys": keys,
        "refused": [asdict(attempt) for attempt in shown.attempts],
        "receipt": str(shown.receipt),
        "log_entries": shown.audit.entries,
        "blobs": shown.audit.blobs,
        "records": shown.audit.records,
        "seconds": clock.laps,
        "page": str(target),
    }


def _report(
    shown: page.Shown, clock: Stopwatch, target: Path, url: str, keys: dict[corpus.Tenant, str]
) -> None:
    render.text(f"\nQuestion: {shown.question}\n")
    for answer in shown.answers:
        render.text(f"{answer.tenant}  ({answer.version.removeprefix('sha256:')[:12]} on {answer.engine})")
        render.text(f"  {answer.content}\n")
    render.table(
        "Refused, as it must be",
        ["attempt", "status", "code"],
        [[a.what, str(a.status), a.code] for a in shown.attempts],
    )
    render.text(f"Receipt {shown.record.id} verified: answered by {shown.record.version}")
    render.text(
        f"Audit chain verified: {shown.audit.entries} log entries, {shown.audit.blobs} blobs, "
        f"{shown.audit.records} request records\n"
    )
    laps = [[what, f"{seconds:.1f} s"] for what, seconds in clock.laps.items()]
    render.table(
        "Where the time went", ["step", "took"], [*laps, ["all", f"{sum(clock.laps.values()):.1f} s"]]
    )
    render.text(f"Page to look at: {target}\n")
    body = json.dumps({"model": ask.MODEL, "messages": [{"role": "user", "content": shown.question}]})
    render.text("Try it yourself (needs --keep):")
    for tenant, key in keys.items():
        render.text(
            f"curl -s {url}/v1/chat/completions -H 'Authorization: Bearer {key}' "
            f"-H 'X-Tenant-ID: {tenant}' -H 'Content-Type: application/json' -d '{body}'"
        )


def _known(tenant: str) -> corpus.Tenant:
    return next(known for known in corpus.TENANTS if known == tenant)


def _plain(by_tenant: Mapping[corpus.Tenant, V]) -> dict[str, V]:
    """Mappings are invariant in their keys: a literal's is not a str's."""
    return {str(tenant): value for tenant, value in by_tenant.items()}


def _must(held: bool, what: str) -> None:
    if not held:
        raise DemoFailed(what)
