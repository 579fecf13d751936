"""Commands against a workspace that nobody serves: exit codes, JSON, and what they leave behind."""

import json
from pathlib import Path

import pytest

from tests.journeys.commands import Done, tenon
from tests.journeys.conftest import Served, prepare, publish


@pytest.fixture
def quiet(tmp_path: Path) -> Served:
    return prepare(tmp_path)


def at(served: Served, *arguments: str) -> Done:
    return tenon(*arguments, "-w", str(served.workspace.root))


def test_a_gate_that_refuses_exits_with_3_and_its_reasons(quiet: Served) -> None:
    version = quiet.versions["bank_a"]
    before = quiet.catalog.snapshot().size
    done = at(quiet, "promote", f"bank_a/assistant@{version}", "--rule", "valid_json>=0.9")
    assert done.code == 3
    assert "valid_json" in done.err
    assert quiet.catalog.snapshot().size == before


def test_rules_that_cannot_be_read_are_named(quiet: Served) -> None:
    done = at(quiet, "promote", f"bank_a/assistant@{quiet.versions['bank_a']}", "--rule", "policy~0.9")
    assert (done.code, "policy~0.9" in done.err) == (1, True)


def test_promote_and_roll_back(quiet: Served, tmp_path: Path) -> None:
    first = quiet.versions["bank_a"]
    second = publish(quiet, "bank_a", tmp_path / "second", seed=41)
    done = at(quiet, "rollback", "bank_a/assistant", "--json")
    assert (done.code, json.loads(done.out)["version"]) == (0, first)
    done = at(quiet, "promote", f"bank_a/assistant@{second}", "--rule", "policy>=0.9", "--json")
    assert (done.code, json.loads(done.out)["passed"]) == (0, True)
    shown = at(quiet, "adapter", "show", "bank_a/assistant", "--json")
    assert json.loads(shown.out)["version"] == second
    listed = json.loads(at(quiet, "adapter", "list", "bank_a", "--json").out)
    assert {row["version"] for row in listed} == {first, second}


def test_pull_gives_back_what_was_pushed(quiet: Served, tmp_path: Path) -> None:
    target = tmp_path / "pulled"
    assert at(quiet, "adapter", "pull", "bank_a/assistant", str(target)).code == 0
    pushed = target.parent / "adapters" / "bank_a"
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (target / file).read_bytes() == (pushed / file).read_bytes()


def test_a_revoked_key_is_listed_as_such(quiet: Served) -> None:
    (key,) = quiet.catalog.keys("bank_a")
    assert at(quiet, "key", "revoke", key.id).code == 0
    (listed,) = json.loads(at(quiet, "key", "list", "bank_a", "--json").out)
    assert (listed["id"], listed["role"], listed["revoked"]) == (key.id, "inference", True)
    assert "secret_hash" not in listed


def test_a_missing_file_is_an_error_with_a_code_not_a_traceback(quiet: Served) -> None:
    for arguments in (
        ("route", "set", "bank_a", "missing.yaml"),
        ("policy", "publish", "bank_a", "v2", "--schema", "missing.json"),
        ("receipt", "verify", "missing.json"),
    ):
        done = at(quiet, *arguments)
        assert done.code == 1, arguments
        assert "missing" in done.err
        assert "Traceback" not in done.err


def test_doctor_knows_this_workspace(quiet: Served) -> None:
    done = at(quiet, "doctor", "--json")
    findings = {finding["check"]: finding["ok"] or finding["warning"] for finding in json.loads(done.out)}
    assert findings["workspace"]
    assert findings["log"]
    assert done.code == (0 if all(findings.values()) else 1)


def test_nothing_runs_so_down_has_nothing_to_do(quiet: Served) -> None:
    done = at(quiet, "down")
    assert (done.code, done.err.strip()) == (0, "Nothing was running")
