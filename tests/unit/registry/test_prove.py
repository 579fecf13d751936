"""The proof on rules that people write: what it counts, what it finds, and how it stays small."""

import time
from collections.abc import Callable, Sequence

import pytest

from registry.digests import Digest
from registry.models import AliasState, DeclaredHeader, Key, Role, Route, Routing, VersionState
from registry.routing.choice import Outcome, Refusal, Rules, choose, derived
from registry.routing.errors import RouteInvalid
from registry.routing.proof import Finding, Flaw
from registry.routing.prove import MAX_FINDINGS, Known, prove

POLICY = Digest.of(b"policy")
VERSION = Digest.of(b"version")
ASSISTANT = ("bank_a", "assistant", "live")
KNOWN = Known(
    tenants=frozenset({"bank_a"}),
    policies={POLICY: "bank_a"},
    aliases={
        ASSISTANT: AliasState(tenant="bank_a", adapter="assistant", alias="live", version=VERSION, epoch=1)
    },
    versions={
        VERSION: VersionState(version=VERSION, tenant="bank_a", adapter="assistant", base=POLICY, rank=4)
    },
)
INDUSTRY = DeclaredHeader(name="x-industry", values=("banking", "retail"), required=True)
REVISION = DeclaredHeader(name="x-policy-version", values=("v1", "v2"))


def rule(name: str, model: str = "assistant", **when: str) -> Route:
    conditions = {f"x-{header.replace('_', '-')}": value for header, value in when.items()}
    return Route(tenant="bank_a", name=name, model=model, when=conditions, adapter="assistant", policy=POLICY)


def routing(*rules: Route, headers: Sequence[DeclaredHeader] | None = None) -> Routing:
    declared = derived(rules) if headers is None else tuple(headers)
    return Routing(tenant="bank_a", revision=1, headers=declared, routes=rules)


def findings(*rules: Route, headers: Sequence[DeclaredHeader] | None = None) -> list[Finding]:
    return list(prove([routing(*rules, headers=headers)], KNOWN).findings)


def test_the_counts_of_a_small_world() -> None:
    proof = prove([routing(rule("default"), rule("v1", policy_version="v1"))], KNOWN)
    assert proof.holds
    assert proof.findings == ()
    # One header: absent, v1, any other value, more than once.
    assert proof.combinations == 4
    assert {(case.rule, case.headers, case.refusal) for case in proof.cases} == {
        ("default", (), None),
        ("v1", (("x-policy-version", "v1"),), None),
        (None, (("x-policy-version", "?"),), Refusal.UNKNOWN),
        (None, (("x-policy-version", "v1"), ("x-policy-version", "v1")), Refusal.REPEATED),
    }


def test_all_combinations_of_two_industries_and_two_policies() -> None:
    rules = [
        rule(f"{industry}-{version}", industry=industry, policy_version=version)
        for industry in INDUSTRY.values
        for version in REVISION.values
    ]
    plain = [rule(industry, industry=industry) for industry in INDUSTRY.values]
    proof = prove([routing(*rules, *plain, headers=(INDUSTRY, REVISION))], KNOWN)
    assert proof.findings == ()
    assert proof.combinations == 25
    assert sum(case.combinations for case in proof.cases if case.rule) == 6


def test_what_an_industry_without_its_rule_is_told() -> None:
    (finding,) = findings(
        rule("banking", industry="banking"), rule("x", "y", industry="retail"), headers=[INDUSTRY]
    )[:1]
    assert (finding.flaw, finding.severity, finding.model) == (Flaw.UNANSWERED, "error", "assistant")
    assert finding.headers == (("x-industry", "retail"),)


def test_each_hole_of_required_headers_is_told_once() -> None:
    region = DeclaredHeader(name="x-region", values=("eu", "us"), required=True)
    told = findings(
        rule("a", industry="banking", region="eu"),
        rule("b", industry="retail", region="eu"),
        rule("c", industry="retail", region="us"),
        headers=(INDUSTRY, region),
    )
    assert [(finding.flaw, finding.headers) for finding in told] == [
        (Flaw.UNANSWERED, (("x-industry", "banking"), ("x-region", "us")))
    ]


def test_values_that_lack_a_rule_for_the_same_reason_are_told_once() -> None:
    many = INDUSTRY.model_copy(update={"values": ("a", "b", "c", "d")})
    rules = [rule("a", industry="a"), *(rule(f"w{value}", "writer", industry=value) for value in many.values)]
    assert [finding.headers for finding in findings(*rules, headers=[many])] == [(("x-industry", "b"),)]


def test_a_model_without_default_is_a_flaw_only_where_headers_were_declared_optional() -> None:
    strict = rule("strict", policy_version="v1")
    (warning,) = findings(strict)
    assert (warning.flaw, warning.severity, warning.headers) == (Flaw.UNANSWERED, "warning", ())
    one = DeclaredHeader(name="x-policy-version", values=("v1",))
    other = DeclaredHeader(name="x-region", values=("eu",))
    errors = [finding for finding in findings(strict, headers=(one, other)) if finding.severity == "error"]
    assert [(finding.flaw, finding.headers) for finding in errors] == [(Flaw.UNANSWERED, ())]
    required = one.model_copy(update={"required": True})
    assert findings(strict, headers=(required,)) == []


def test_a_declared_value_that_nothing_answers() -> None:
    told = findings(rule("default"), rule("v1", policy_version="v1"), headers=[REVISION])
    assert [(finding.flaw, finding.headers) for finding in told] == [
        (Flaw.UNANSWERED, (("x-policy-version", "v2"),))
    ]


def test_a_header_that_no_rule_looks_at() -> None:
    (finding,) = findings(rule("default"), headers=[REVISION])
    assert (finding.flaw, finding.severity, finding.headers) == (Flaw.UNUSED, "warning", None)


@pytest.mark.parametrize(
    ("one", "other", "ambiguous"),
    [
        ({}, {}, True),
        ({}, {"a": "1"}, False),
        ({"a": "1"}, {"a": "2"}, False),
        ({"a": "1"}, {"a": "1"}, True),
        ({"a": "1"}, {"b": "1"}, True),
        ({"a": "1", "b": "1"}, {"a": "1", "b": "2"}, False),
        ({"a": "1", "b": "1"}, {"a": "1", "c": "2"}, True),
        ({"a": "1", "b": "1"}, {"a": "2", "c": "2"}, False),
        ({"a": "1", "b": "1"}, {"c": "1"}, True),  # more conditions do not make a header negligible
    ],
)
def test_which_pairs_are_ambiguous(one: dict[str, str], other: dict[str, str], *, ambiguous: bool) -> None:
    told = [f for f in findings(rule("one", **one), rule("other", **other)) if f.severity == "error"]
    assert [finding.flaw for finding in told] == [Flaw.AMBIGUOUS] * ambiguous
    if ambiguous:
        assert told[0].rules == ("one", "other")
        assert dict(told[0].headers or ()) == {f"x-{k}": v for k, v in (one | other).items()}
    assert not [f for f in findings(rule("one", **one), rule("other", "writer", **other)) if f.rules]


def test_a_rule_for_both_settles_a_tie() -> None:
    tie = (rule("default"), rule("a", a="1"), rule("b", b="1"))
    assert [finding.flaw for finding in findings(*tie)] == [Flaw.AMBIGUOUS]
    assert findings(*tie, rule("both", a="1", b="1")) == []


def test_a_default_beside_a_required_header_is_shadowed() -> None:
    told = findings(
        rule("default"), *(rule(value, industry=value) for value in INDUSTRY.values), headers=[INDUSTRY]
    )
    (finding,) = told
    assert (finding.flaw, finding.rules) == (Flaw.SHADOWED, ("default", "banking", "retail"))
    assert finding.headers == (("x-industry", "banking"),)
    assert "every one carries x-industry" in finding.why


def test_a_shadowed_rule_that_nobody_answers_for() -> None:
    told = findings(
        rule("eu", region="eu"),
        rule("all", industry="banking", region="us"),
        rule("retail", "m2", industry="retail"),
        headers=(INDUSTRY, DeclaredHeader(name="x-region", values=("eu", "us"))),
    )
    shadowed = [finding for finding in told if finding.flaw is Flaw.SHADOWED]
    assert [(finding.rules, finding.headers) for finding in shadowed] == [
        (("eu",), (("x-industry", "banking"), ("x-region", "eu")))
    ]
    assert "refused" in shadowed[0].why


def test_conditions_on_what_is_not_declared() -> None:
    told = findings(
        rule("default"), rule("v9", policy_version="v9"), rule("eu", region="eu"), headers=[REVISION]
    )
    assert {(finding.rules, finding.why) for finding in told if finding.flaw is Flaw.UNDECLARED} == {
        (("v9",), "v9 tests x-policy-version: v9, which is not declared"),
        (("eu",), "eu tests the header x-region, which is not declared"),
    }


def test_where_rules_lead() -> None:
    away = rule("away").model_copy(update={"adapter": "other"})
    assert [(f.flaw, f.severity) for f in findings(away)] == [(Flaw.NOT_PUSHED, "warning")]
    lost = rule("lost").model_copy(update={"policy": Digest.of(b"none")})
    assert [f.flaw for f in findings(lost)] == [Flaw.FOREIGN_POLICY]
    for change, flaw in (
        ({"revoked": True}, Flaw.REVOKED),
        ({"adapter": "other"}, Flaw.FOREIGN_VERSION),
        ({"tenant": "retail_b"}, Flaw.FOREIGN_VERSION),
    ):
        version = KNOWN.versions[VERSION].model_copy(update=change)
        known = Known(KNOWN.tenants, (), KNOWN.policies, KNOWN.aliases, {VERSION: version})
        (finding,) = prove([routing(rule("default"))], known).findings
        assert finding.flaw is flaw
        assert (finding.severity == "error") is (flaw is Flaw.FOREIGN_VERSION)
    unknown = Known(KNOWN.tenants, (), KNOWN.policies, KNOWN.aliases, {})
    assert prove([routing(rule("default"))], unknown).errors[0].flaw is Flaw.FOREIGN_VERSION


def test_keys_that_could_open_another_tenant() -> None:
    keys = tuple(
        Key(id=f"k{at}", tenant=tenant, role=Role.INFERENCE, secret_hash=Digest.of(secret), revoked=revoked)
        for at, (tenant, secret, revoked) in enumerate([
            ("bank_a", b"own", False), ("bank_a", b"shared", False), ("retail_b", b"shared", False),
            ("nobody", b"lost", False), ("nobody", b"gone", True), (None, b"platform", False),
        ])
    )  # fmt: skip
    proof = prove([], Known(tenants=frozenset({"bank_a", "retail_b"}), keys=keys))
    assert proof.keys == 4
    assert {finding.why for finding in proof.errors} == {
        "the key k1 has the same secret as another key",
        "the key k2 has the same secret as another key",
        "the key k3 belongs to no known tenant",
    }


Chooser = Callable[[Rules[Route], Callable[[str], Sequence[str]]], Outcome[Route]]


def _forgives(*refusals: Refusal) -> Chooser:
    """A router with one mistake: what should be refused gets the first rule."""

    def forgiving(rules: Rules[Route], every: Callable[[str], Sequence[str]]) -> Outcome[Route]:
        outcome = choose(rules, every)
        return Outcome(next(iter(rules.exact.values()))[0]) if outcome.refusal in refusals else outcome

    return forgiving


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (Refusal.REPEATED, "sends x-industry more than once"),
        (Refusal.UNKNOWN, "with a value of x-industry that is not declared"),
        (Refusal.REQUIRED, "without x-industry, which is required"),
        (Refusal.UNMATCHED, "without regard for x-policy-version"),
    ],
)
def test_a_router_that_forgives_is_found_with_the_request_that_shows_it(refusal: Refusal, why: str) -> None:
    rules = routing(
        rule("b", industry="banking"),
        rule("r", industry="retail"),
        rule("v1", industry="retail", policy_version="v1"),
        headers=(INDUSTRY, DeclaredHeader(name="x-policy-version", values=("v1",))),
    )
    assert prove([rules], KNOWN).holds
    told = prove([rules], KNOWN, choose=_forgives(refusal)).errors
    assert {finding.flaw for finding in told} == {Flaw.FALLS_THROUGH}
    assert any(why in finding.why for finding in told)


def test_sixteen_headers_of_many_values_are_no_explosion() -> None:
    headers = [
        DeclaredHeader(name=f"x-h{at:02}", values=tuple(f"v{value:03}" for value in range(1000)))
        for at in range(16)
    ]
    whole = {header.name: "v001" for header in headers}
    # A chain: each names one header more, so that every pair agrees and none is a tie.
    rules = [
        Route(
            tenant="bank_a",
            name=f"r{at}",
            model="assistant",
            when=dict(list(whole.items())[:at]),
            adapter="assistant",
            policy=POLICY,
        )
        for at in range(17)
    ]
    started = time.process_time()
    proof = prove([routing(*rules, headers=headers)], KNOWN)
    assert time.process_time() - started < 2
    assert proof.combinations == 1003**16
    assert len(proof.cases) < 200
    assert sum(case.combinations for case in proof.cases if case.rule) == 17
    assert {finding.flaw for finding in proof.errors} == {Flaw.UNANSWERED}  # the other 999 values of each
    assert len(proof.findings) == 16


def test_findings_beyond_those_that_are_listed_are_counted() -> None:
    told = prove([routing(*(rule(f"r{at}") for at in range(20)))], KNOWN)
    assert (len(told.findings), told.more) == (MAX_FINDINGS, 20 * 19 // 2 - MAX_FINDINGS)


def test_five_hundred_rules_are_proved_in_no_time() -> None:
    rules = [
        rule(f"r{a}-{b}", industry=f"i{a}", policy_version=f"v{b}") for a in range(20) for b in range(25)
    ]
    started = time.process_time()
    proof = prove([routing(*rules)], KNOWN)
    assert time.process_time() - started < 5
    assert proof.holds
    assert proof.combinations == (20 + 3) * (25 + 3)
    assert sum(case.combinations for case in proof.cases if case.rule) == 500


def test_more_than_can_be_proved_is_refused() -> None:
    foreign = rule("foreign", **{"a" * 70: "1"}).model_copy(update={"tenant": "retail_b"})  # found by fuzzing
    with pytest.raises(RouteInvalid, match="no lower-case name"):
        prove([Routing(tenant="bank_a", revision=1, routes=(foreign,))], KNOWN)
    with pytest.raises(RouteInvalid, match="at most 500"):
        prove([routing(*(rule(f"r{at}", a=str(at)) for at in range(501)))], KNOWN)
