"""``tenon record ship``: to the registry's own database, from options or settings."""

import json
from pathlib import Path

import pytest

from registry.models import Tenant
from registry.signing.keys import Signer
from server.assembly.catalog import initialise, open_catalog
from server.workspace import Workspace
from tests.journeys.commands import tenon_here
from tests.support import chains


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """With five records under a head."""
    found = initialise(tmp_path / "w")
    key = Signer.load(found.key("router"))
    monkeypatch.setattr(chains, "signer", lambda _: key)
    chains.grow(found.records / "router-0", ["bank_a"] * 5, open_catalog(found), more=1)
    return found


def shipped(*options: str) -> dict[str, int]:
    done = tenon_here("record", "ship", "--json", *options)
    assert done.code == 0, done.err
    found: dict[str, int] = json.loads(done.out)["shipped"]
    return found


def test_into_the_workspace_once(workspace: Workspace) -> None:
    at = ("-w", str(workspace.root))
    assert shipped("--to", "registry", *at) == {"router-0": 5}
    assert shipped("--to", "registry", *at) == {"router-0": 0}
    assert open_catalog(workspace).records_stored("router-0").next == 5


def test_settings_say_where_to(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENON_RECORDS_DIR", str(workspace.records))
    monkeypatch.setenv("TENON_SHIP_TO", str(tmp_path / "out"))
    assert shipped() == {"router-0": 5}
    assert list((tmp_path / "out" / "router-0").iterdir())
    monkeypatch.setenv("TENON_SHIP_TO", "registry")
    monkeypatch.setenv("TENON_CONTROL_URL", "http://127.0.0.1:9")
    done = tenon_here("record", "ship")
    assert done.code == 1
    assert "TENON_SERVICE_TOKEN_FILE" in done.err
    monkeypatch.setenv("TENON_SERVICE_TOKEN_FILE", str(workspace.service_token))
    assert tenon_here("record", "ship").code == 4  # nobody listens there


def test_somewhere_must_be_named(workspace: Workspace) -> None:
    done = tenon_here("record", "ship", "-w", str(workspace.root))
    assert done.code == 2
    assert "TENON_SHIP_TO" in done.err


@pytest.mark.parametrize(
    "to",
    ["postgresql://me:hunter2@db/tenon", "Registry", "REGISTRY", "s3", "s3://b/x", "file:/srv", " "],
)
def test_what_is_no_target_is_refused_and_nothing_is_made(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    done = tenon_here("record", "ship", "--to", to, "-w", str(workspace.root))
    assert done.code != 0
    assert "hint:" in done.err
    assert "hunter2" not in done.err + done.out
    assert list(here.iterdir()) == []


def test_records_that_are_not_there_are_an_error(workspace: Workspace, tmp_path: Path) -> None:
    for wrong in (tmp_path / "nope", workspace.records / "router-0"):
        done = tenon_here("record", "ship", "--to", str(tmp_path / "out"), "--records", str(wrong))
        assert done.code == 1
        assert str(wrong) in done.err
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_second_chain_is_refused_by_the_registry(workspace: Workspace, tmp_path: Path) -> None:
    at = ("-w", str(workspace.root))
    assert shipped("--to", "registry", *at) == {"router-0": 5}
    lost = initialise(tmp_path / "lost")
    chains.grow(lost.records / "router-0", ["bank_b"] * 8, open_catalog(lost))
    done = tenon_here("record", "ship", "--to", "registry", "--records", str(lost.records), *at)
    assert done.code == 1
    assert "another one" in done.err
    assert "TENON_WRITER" in done.err


@pytest.mark.parametrize(
    "days", [("--from", "2026-02-02", "--to", "2026-02-01"), ("--from", "gestern"), ("--to", "2026-02-30")]
)
def test_usage_of_no_days_is_an_error(workspace: Workspace, days: tuple[str, ...]) -> None:
    open_catalog(workspace).create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="test")
    done = tenon_here("usage", "bank_a", *days, "-w", str(workspace.root))
    assert done.code == 1
    assert "earlier day" in done.err
    assert tenon_here("usage", "bank_o", "-w", str(workspace.root)).code == 1
    assert tenon_here("usage", "bank_a", "-w", str(workspace.root)).code == 0
