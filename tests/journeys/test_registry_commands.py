"""The registry's own commands, in a folder and against a URL: the same words, the same answers."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from registry.manifests import Provenance
from registry.models import Role, Tenant
from registry.usage import UsageBatch, UsageLine
from server.assembly.catalog import initialise, open_catalog
from tests.journeys.commands import Done, tenon_here
from tests.support.adapters import tiny_base, tiny_fingerprint, write_adapter
from tests.support.registries import NAME
from tests.support.remote import remote

Run = Callable[..., Done]


@pytest.fixture(params=["folder", "url"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """``tenon`` against an empty registry."""
    monkeypatch.chdir(tmp_path)
    if request.param == "folder":
        monkeypatch.setenv("TENON_WORKSPACE", str(initialise(tmp_path / "work").root))
        yield tenon_here
        return
    with remote(tmp_path / "registry", empty=True) as found:
        _, secret = found.world.catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="test")
        (tmp_path / "key").write_text(secret)
        monkeypatch.setenv("TENON_WORKSPACE", found.url)
        monkeypatch.setenv("TENON_KEY_FILE", str(tmp_path / "key"))
        yield tenon_here


def said(done: Done) -> Any:
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_tenants_keys_signers_and_policies(run: Run, tmp_path: Path) -> None:
    assert said(run("tenant", "add", "bank_a", "--display", "Bank A", "--json"))["display_name"] == "Bank A"
    quota = ("tenant", "quota", "bank_a", "--tokens-per-day", "1000")
    assert said(run(*quota, "--requests-per-minute", "60", "--json"))["requests_per_minute"] == 60
    changed = said(run("tenant", "quota", "bank_a", "--requests-per-minute", "unlimited", "--json"))
    assert (changed["requests_per_minute"], changed["tokens_per_day"]) == (None, 1000)
    assert run("tenant", "quota", "bank_a", "--tokens-per-day", "many").code == 2
    assert run("tenant", "suspend", "bank_a", "--reason", "unpaid").code == 0
    assert said(run("tenant", "show", "bank_a", "--json"))["suspended"] is True
    assert run("tenant", "resume", "bank_a").code == 0

    key = said(run("key", "issue", "bank_a", "--role", "trainer", "--label", "ci", "--json"))
    assert key["secret"].startswith("tn_")
    other = run("key", "rotate", key["id"], "--overlap", "60", "--tenant", "bank_a", "--json")
    listed = {one["id"]: one for one in said(run("key", "list", "bank_a", "--json"))}
    assert set(listed) == {key["id"], said(other)["id"]}
    assert listed[key["id"]]["expires_at"] is not None
    assert key["secret"] not in json.dumps(listed)

    public = run("signer", "new", "trainer.key", "--role", "trainer")
    (tmp_path / "trainer.json").write_text(public.out)
    assert (tmp_path / "trainer.key").stat().st_mode & 0o077 == 0
    known = said(run("signer", "trust", "trainer.json", "--json"))["id"]
    assert known in {one["id"] for one in said(run("signer", "list", "--json"))}
    assert run("signer", "distrust", known, "--reason", "lost").code == 0
    assert known not in {one["id"] for one in said(run("signer", "list", "--json"))}

    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"z": {}, "a": {}}}')
    digest = said(run("policy", "publish", "bank_a", "v1", "--schema", "schema.json", "--json"))["digest"]
    assert [one["digest"] for one in said(run("policy", "list", "bank_a", "--json"))] == [digest]
    assert run("policy", "show", "bank_a", "v1").out.index('"z"') > 0
    assert run("policy", "show", "bank_a", "v2").code == 1


def test_moving_an_alias_and_reading_what_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote(tmp_path / "registry") as found:
        first, second = (found.world.evaluated(seed=seed) for seed in (1, 2))
        monkeypatch.setenv("TENON_WORKSPACE", found.url)
        for name in ("ada", "bob"):
            _, secret = found.world.catalog.issue_key("bank_a", role=Role.TENANT_ADMIN, actor="platform")
            (tmp_path / name).write_text(secret)

        def by(name: str, *words: str) -> Done:
            monkeypatch.setenv("TENON_KEY_FILE", str(tmp_path / name))
            return tenon_here(*words)

        ada = partial(by, "ada")
        rule = ("--rule", "accuracy>=0.8")
        assert ada("promote", f"{NAME}@{first}", *rule).code == 0
        canary = ada("promote", f"{NAME}@{second}", *rule, "--percent", "10")
        assert (canary.code, "10 %" in canary.err) == (0, True)
        shown = said(ada("alias", "show", str(NAME), "--json"))
        assert [(one["version"], one["percent"]) for one in shown["canaries"]] == [(second, 10)]
        assert said(ada("rollback", str(NAME), "--json"))["canaries"] == []
        late = ada("rollback", str(NAME), "--expect-epoch", "1")
        assert (late.code, "[alias_moved]" in late.err) == (1, True)

        differing = said(ada("adapter", "diff", str(NAME), f"{NAME}@{second}", "--json"))
        assert {"file adapter_model.safetensors", "fingerprint"} <= set(differing["differences"])
        assert "base" not in differing["differences"]
        assert len(differing["metrics"]) == 1
        one = said(ada("adapter", "show", str(NAME), "--json"))
        assert (one["version"], one["state"], one["aliases"]) == (first, "live", ["live"])

        assert ada("alias", "protect", "bank_a", "--approvals", "1").code == 0
        waiting = ada("promote", f"{NAME}@{second}", *rule)
        assert waiting.code == 0, waiting.err
        assert "nothing has moved" in waiting.err
        proposal = waiting.out.strip()
        mine = ada("proposal", "approve", "bank_a", proposal)
        assert (mine.code, "[approval_refused]" in mine.err) == (1, True)
        theirs = by("bob", "proposal", "approve", "bank_a", proposal, "--json")
        assert said(theirs)["state"] == "done"
        revoked = ada("revoke", f"{NAME}@{second}", "--reason", "wrong rows", "--json")
        assert said(revoked)["aliases"] == ["live"]
        moves = said(ada("history", str(NAME), "--json"))
        assert [move["cause"] for move in moves] == ["promotion", "canary", "rollback", "promotion"]


def test_a_release_key_signs_a_move_with_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote(tmp_path / "registry") as found:
        monkeypatch.setenv("TENON_WORKSPACE", found.url)
        monkeypatch.setenv("TENON_KEY_FILE", str(tmp_path / "platform"))
        _, secret = found.world.catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="cli")
        (tmp_path / "platform").write_text(secret)
        version = found.world.evaluated(seed=1)
        public = tenon_here("signer", "new", str(tmp_path / "release.key"), "--role", "release")
        (tmp_path / "release.json").write_text(public.out)
        assert tenon_here("signer", "trust", str(tmp_path / "release.json")).code == 0
        assert tenon_here("alias", "protect", "bank_a", "--release-signature").code == 0
        move = (
            "promote",
            f"{NAME}@{version}",
            "--rule",
            "accuracy>=0.8",
            "--expires-at",
            "2099-01-01T01:00:00+01:00",
        )
        unsigned = tenon_here(*move)
        assert (unsigned.code, "[release_signature_required]" in unsigned.err) == (1, True)
        signed = tenon_here(*move, "--release-key", str(tmp_path / "release.key"))
        assert signed.code == 0, signed.err
        shown = said(tenon_here("alias", "show", str(NAME), "--json"))
        assert shown["expires_at"].startswith("2099-01-01T00:00:00")


def test_usage_is_summed_by_version_and_by_day(tmp_path: Path) -> None:
    workspace = initialise(tmp_path / "work")
    catalog = open_catalog(workspace)
    catalog.create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="t")
    base, contract = tiny_base()
    digest = catalog.register_base(base, contract, actor="t")
    version = catalog.push(
        NAME, write_adapter(tmp_path / "adapter", base), base=digest, fingerprint=tiny_fingerprint(digest),
        provenance=Provenance(method="upload"), actor="t",
    )  # fmt: skip
    lines = tuple(
        UsageLine(
            tenant="bank_a", adapter="assistant", version=version, day=f"2026-01-0{day}",
            requests=day, prompt_tokens=10 * day, completion_tokens=day,
        )
        for day in (1, 2, 3)
    )  # fmt: skip
    catalog.count_usage(UsageBatch(writer="router-0", seq=0, lines=lines))
    asked = ("usage", "bank_a", "--from", "2026-01-02", "--to", "2026-01-03", "-w", str(workspace.root))
    assert sum(line["requests"] for line in said(tenon_here(*asked, "--json"))) == 5
    table = tenon_here(*asked, "--by", "day").out
    assert [row.split() for row in table.splitlines() if row.strip()][-3:] == [
        ["2026-01-02", "2", "20", "2"], ["2026-01-03", "3", "30", "3"], ["together", "5", "50", "5"],
    ]  # fmt: skip
