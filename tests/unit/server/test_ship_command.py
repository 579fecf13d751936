"""``tenon record ship``: to the registry's own database, from options or settings."""

import json
from pathlib import Path

import pytest

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
    accept = lambda head: open_catalog(found).record_head(head, actor="test")  # noqa: E731
    chains.grow(found.records / "router-0", ["bank_a"] * 5, accept, more=1)
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
