"""Policies as files, and the texts they keep, on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from registry.errors import InvalidDocument
from registry.models import Policy, Retention, Tenant
from router.errors import TextNotKept, TextUnreadable
from router.testing import honest
from server.assembly.catalog import initialise, open_catalog
from server.assembly.policy_file import read_policy
from server.cli import policy as policy_commands
from server.cli import record as record_commands
from server.errors import RecordNotFound
from server.workspace import find
from tests.unit.router.driving import QUESTION, House

GUIDE = (Path(__file__).parents[2] / "docs/guides/policies.md").read_text()
EXAMPLE = GUIDE.split("```yaml\n")[1].split("```")[0]


def here(*arguments: str) -> Any:
    app = typer.Typer()
    policy_commands.install(app)
    record_commands.install(app)
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    catalog = open_catalog(initialise(tmp_path / "work"))
    catalog.create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="test")
    return tmp_path


def test_the_guide_s_policy_is_checked_published_and_shown(work: Path) -> None:
    (work / "policy.yaml").write_text(EXAMPLE)
    file, place = str(work / "policy.yaml"), ("--workspace", str(work / "work"))
    assert here("policy", "check", file).stdout == "enforced: every keyword\n"
    digest = here("policy", "publish", "bank_a", "v2", "--file", file, *place).stdout.strip()
    shown = json.loads(here("policy", "show", "bank_a", "v2", "--json", *place).stdout)
    assert shown["digest"] == digest
    assert list(json.loads(shown["json_schema"])["properties"]) == ["reason", "decision"]
    assert (shown["on_invalid"], shown["client_schema"], shown["retention"]) == ("retry", "narrow", "hmac")
    told = here("policy", "show", "bank_a", "v2", *place).stdout
    assert all(word in told for word in ("retry", "narrow", "hmac", "assistant:"))
    twice = here("policy", "publish", "bank_a", "v2", "--file", file, "--max-tokens", "9", *place)
    assert twice.exit_code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tools: [a]\nschema: {type: object}\n", "no tool is ever called"),
        ("schema: {oneOf: []}\n", "oneOf"),
        ("sampling: {max_top_p: 0.5}\n", "top_p"),
    ],
)
def test_what_cannot_be_kept_is_told_before_and_refused_when_published(
    work: Path, text: str, says: str
) -> None:
    (work / "policy.yml").write_text(text)
    file = str(work / "policy.yml")
    told = here("policy", "check", file)
    assert (told.exit_code, says in told.stdout) == (1, True)
    assert json.loads(here("policy", "check", file, "--json").stdout)["enforced"] is False
    assert here("policy", "publish", "bank_a", "v2", "-f", file, "-w", str(work / "work")).exit_code == 1


@pytest.mark.parametrize(
    "text", ["- a", "retention: forever", "unknown: 1", "schema: nowhere.json", "tools: [a, {", "a: 1\na: 2"]
)
def test_files_that_are_no_policies(tmp_path: Path, text: str) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises((InvalidDocument, OSError)):
        read_policy(tmp_path / "policy.yaml", tenant="bank_a", name="v1")


def test_a_schema_may_be_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{ "type": "object" }')
    (tmp_path / "policy.yaml").write_text("schema: schema.json\n")
    found = read_policy(tmp_path / "policy.yaml", tenant="bank_a", name="v1")
    assert found == Policy(tenant="bank_a", name="v1", json_schema='{ "type": "object" }')


async def test_kept_texts_are_shown_to_who_has_the_key_until_they_are_forgotten(work: Path) -> None:
    place = find(work / "work")
    house = House(place.records, retention_key=place.retention_key.read_text().strip().encode())
    house.engines.script = honest("your PIN is 1234")
    await house.app.start()
    house.scene.engine()
    full = house.scene.serve("bank_a", retention=Retention.FULL)
    plain = house.scene.serve("bank_b")
    await house.publish()
    kept, unkept = await house.ask(full), await house.ask(plain)
    await house.app.stop()

    show = ("record", "show", kept.record, "--workspace", str(work / "work"))
    assert "PIN" not in here(*show).stdout
    shown = json.loads(here(*show, "--text", "--json").stdout)
    assert json.loads(shown["question"]) == QUESTION
    assert shown["answer_text"].encode() == kept.body
    assert here(*show[:2], unkept.record, *show[3:]).exit_code == 0
    assert isinstance(here(*show[:2], unkept.record, *show[3:], "--text").exception, TextNotKept)
    assert isinstance(here(*show[:2], "rec-0", *show[3:]).exception, RecordNotFound)
    for name, text in {"q": shown["question"].encode(), "a": kept.body, "x": b"your PIN is 1235"}.items():
        (work / name).write_bytes(text)
    for name, same in {"q": ["question"], "a": ["answer"], "x": []}.items():
        told = here(*show, "--matches", str(work / name), "--json")
        assert json.loads(told.stdout)["matches"] == same
        assert told.exit_code == (0 if same else 1)
    (work / "other").write_text("another retention key of 32 characters")
    assert here(*show, "--text", "--retention-key", str(work / "other")).exit_code == 1

    old = place.retention_key.read_text()
    place.retention_key.write_text("another retention key of 32 characters\n" + old)
    assert here("record", "rewrap", "--workspace", str(work / "work")).stdout == "router-0: 1 keys\n"
    place.retention_key.write_text("another retention key of 32 characters")
    assert here(*show, "--matches", str(work / "q")).exit_code == 0

    forget = ("record", "forget", "bank_a", "--workspace", str(work / "work"))
    assert here(*forget).exit_code == 1  # nobody said yes
    assert here(*forget, "--yes").stdout == "forgotten by: router-0\n"
    assert here(*forget, "--yes").stdout == "there was nothing to forget\n"
    assert isinstance(here(*show, "--text").exception, TextUnreadable)
    assert here(*show).exit_code == 0
