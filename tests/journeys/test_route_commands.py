"""Routes on the command line: proved before they are in force, and shown with what each request reaches."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from registry.catalog.local.catalog import LocalCatalog
from registry.errors import InvalidDocument
from registry.models import Policy, Tenant
from registry.routing.errors import RoutingChanged
from server.assembly.catalog import initialise, open_catalog
from server.assembly.rules import read_rules
from server.cli import policy as policy_commands
from server.cli import route as route_commands
from server.workspace import find
from tests.journeys.commands import tenon

RULES = """\
headers:
  x-industry: {{values: [banking, retail], required: true}}
  x-policy-version: [v1]
routes:
  - {{name: banking, model: assistant, when: {{x-industry: banking}}, adapter: assistant, policy: "{policy}"}}
  - {{name: retail, model: assistant, when: {{x-industry: retail}}, adapter: assistant, policy: "{policy}"}}
  - name: banking-v1
    model: assistant
    when: {{x-industry: banking, x-policy-version: v1}}
    adapter: assistant
    policy: "{policy}"
"""


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    error: BaseException | None


def here(*arguments: str) -> Told:
    """In this process: a new one takes a second."""
    app = typer.Typer()
    route_commands.install(app)
    policy_commands.install(app)
    done = CliRunner().invoke(app, arguments)
    return Told(done.exit_code, done.stdout, done.exception)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, str]:
    """(a workspace with one tenant, its policy)."""
    root = tmp_path / "work"
    catalog = open_catalog(initialise(root))
    catalog.create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="test")
    return root, catalog.publish_policy(Policy(tenant="bank_a", name="v1"), actor="test")


def test_from_a_file_to_what_is_in_force_and_its_history(place: tuple[Path, str], tmp_path: Path) -> None:
    root, policy = place
    at = ("-w", str(root))
    file = tmp_path / "routes.yaml"
    file.write_text(RULES.format(policy=policy))

    told = here("route", "prove", str(file), "--tenant", "bank_a", *at)
    assert told.code == 0
    assert "proved: 20 combinations in" in told.out
    assert "no foreign adapter, no shadowed rule, nothing falls through" in told.out
    assert "warning: banking leads to assistant:live, which points nowhere yet [not_pushed]" in told.out
    assert catalog_at(root).routing("bank_a").revision == 0

    assert here("route", "set", "bank_a", str(file), "--expect", "0", *at).code == 0
    assert isinstance(here("route", "set", "bank_a", str(file), "--expect", "0", *at).error, RoutingChanged)
    shown = json.loads(here("route", "show", "bank_a", "--json", *at).out)
    assert (shown["revision"], len(shown["routes"]), shown["headers"][0]["required"]) == (1, 3, True)

    file.write_text(f"- {{name: default, model: assistant, adapter: assistant, policy: '{policy}'}}\n")
    assert here("route", "set", "bank_a", str(file), *at).code == 0
    assert "+default -banking -retail -banking-v1 headers" in " ".join(
        here("route", "history", "bank_a", *at).out.split()
    )
    moves = json.loads(here("route", "history", "bank_a", "--json", *at).out)
    assert [move["routing"]["revision"] for move in moves] == [1, 2]
    assert "banking-v1" in here("route", "show", "bank_a", "--revision", "1", *at).out
    assert here("route", "show", "bank_a", "--revision", "9", *at).code == 1
    everything = json.loads(here("route", "prove", "--json", *at).out)
    assert (everything["holds"], everything["combinations"], everything["tenants"]) == (True, 1, 1)
    (only,) = json.loads(here("route", "list", "bank_a", "--json", *at).out)
    assert only["name"] == "default"


def test_a_proof_that_fails_shows_the_request(place: tuple[Path, str], tmp_path: Path) -> None:
    root, policy = place
    at = ("-w", str(root))
    file = tmp_path / "routes.yaml"
    default = f"  - {{name: default, model: assistant, adapter: assistant, policy: '{policy}'}}\n"
    file.write_text(RULES.format(policy=policy) + default)
    told = here("route", "prove", str(file), "--tenant", "bank_a", *at)
    assert told.code == 3
    assert "error: no request reaches default" in told.out
    assert (
        "curl http://ROUTER/v1/chat/completions -H 'Authorization: Bearer KEY-OF-bank_a' "
        "-H 'Content-Type: application/json' -H 'x-industry: banking' -d '{\"model\": \"assistant\""
    ) in told.out
    assert "proved" not in told.out
    assert (
        json.loads(tenon("route", "prove", str(file), "--tenant", "bank_a", "--json", *at).out)["holds"]
        is False
    )
    refused = tenon("route", "set", "bank_a", str(file), *at)
    assert (refused.code, refused.out) == (3, "")
    assert "[route_refused]" in refused.err
    assert "send x-industry: banking" in refused.err
    assert catalog_at(root).routing("bank_a").revision == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {name: a, model: m, model: n}\n", "line 1: [0].model: written twice"),
        ("routes: 5\n", "routes is not a list"),
        ("- 5\n", "a route is a map"),
        ("a: 1\n", "neither a list of routes"),
        ("headers: [x-a]\nroutes: []\n", "headers is not a map"),
        ("headers: {x-a: {values: [1]}}\nroutes: []\n", "header 'x-a'"),
        ("headers: {x-a: v}\nroutes: []\n", "write its values"),
        ("- &a {name: a, model: m, adapter: x, policy: y}\n- *a\n", "anchors"),
        ("- {name: ../a, model: m, adapter: x, policy: y}\n", "route '../a'"),
        ("\x00", "a character that YAML does not allow"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_files_that_are_no_routes(place: tuple[Path, str], tmp_path: Path, text: str, words: str) -> None:
    from registry.errors import InvalidDocument

    file = tmp_path / "routes.yaml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidDocument) as refused:
        read_rules(file, "bank_a")
    assert words in refused.value.message


def test_a_file_needs_its_tenant(place: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("[]")
    assert here("route", "prove", str(tmp_path / "r.yaml"), "-w", str(place[0])).code == 2


def test_a_schema_is_checked_without_publishing_it(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object", "properties": {"a": {"$ref": "https://example.com/s"}}}')
    told = here("policy", "check", str(file))
    assert told.code == 1
    assert "/properties/a $ref: only a local '#/$defs/name'" in told.out
    assert json.loads(here("policy", "check", str(file), "--json").out)["faults"][0]["keyword"] == "$ref"
    file.write_text('{"type": "object"}')
    assert here("policy", "check", str(file)).out == "enforced: every keyword\n"
    file.write_text("[1]")
    assert isinstance(here("policy", "check", str(file)).error, InvalidDocument)


def catalog_at(root: Path) -> LocalCatalog:
    return open_catalog(find(root))
