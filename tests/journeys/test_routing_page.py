"""docs/concepts/routing.md and docs/reference/policies.md say what the code does."""

import re
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.models import Routing
from registry.policies import FORMATS, KEYWORDS, lint
from registry.routing.choice import choose, compiled, derived
from registry.routing.form import MAX_CONDITIONS, MAX_HEADERS, MAX_ROUTES, MAX_VALUES
from registry.routing.proof import Flaw
from registry.routing.prove import Known, prove
from server.assembly.rules import read_rules

DOCS = Path(__file__).parents[2] / "docs"
POLICY = Digest.of(b"policy")
PAGE = (DOCS / "concepts/routing.md").read_text()
EXAMPLES = [text.replace("POLICY", POLICY) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]


def routing(tmp_path: Path, text: str) -> Routing:
    (tmp_path / "routes.yaml").write_text(text)
    rules = read_rules(tmp_path / "routes.yaml", "bank_a")
    return Routing(
        tenant="bank_a", revision=1, headers=rules.headers or derived(rules.routes), routes=rules.routes
    )


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_are_proved(tmp_path: Path, text: str) -> None:
    proof = prove(
        [routing(tmp_path, text)], Known(tenants=frozenset({"bank_a"}), policies={POLICY: "bank_a"})
    )
    assert {finding.flaw for finding in proof.findings} == {Flaw.NOT_PUSHED}


def test_the_table_of_requests_is_what_the_router_does(tmp_path: Path) -> None:
    rules = routing(tmp_path, EXAMPLES[0])
    ready = compiled(((route.when, route) for route in rules.routes), rules.headers)
    rows = re.findall(r"^\| (`x-[^|]*|nothing) \| `([a-z0-9-]+)` \|", PAGE, re.M)
    assert len(rows) == 7
    for request, expected in rows:
        sent = re.findall(r"`([a-z-]+): ([a-z0-9]+)`", request)
        outcome = choose(ready, lambda name, sent=sent: [value for key, value in sent if key == name])  # type: ignore[misc]
        assert (outcome.rule.name if outcome.rule else outcome.refusal) == expected


def test_every_finding_and_bound_is_on_the_page() -> None:
    assert all(f"`{flaw}`" in PAGE for flaw in Flaw)
    said = f"{MAX_ROUTES} rules, {MAX_CONDITIONS} conditions a rule, {MAX_HEADERS} headers or {MAX_VALUES:,}"
    assert said in " ".join(PAGE.split())


def test_the_page_of_policies_lists_what_is_enforced() -> None:
    page = (DOCS / "reference/policies.md").read_text()
    accepted, refused = (
        re.findall(r"`(\$?[A-Za-z]+)`", re.search(rf"^{word}.*?\n\n", page, re.S | re.M)[0])  # type: ignore[index]
        for word in ("Accepted", "Refused")
    )
    assert set(accepted) == KEYWORDS
    assert not set(refused) & KEYWORDS
    assert all(lint({keyword: {}}) for keyword in refused)
    assert set(re.findall(r"`([a-z0-9-]+)`", page.split("`format` is one of")[1].split(".\n")[0])) == FORMATS
