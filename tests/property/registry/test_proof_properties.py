"""The proof against brute force: every combination of headers, one by one, asked of another router."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from registry.digests import Digest
from registry.models import AliasState, DeclaredHeader, Route, Routing, VersionState
from registry.routing.choice import Outcome, Refusal, Rules, choose, compiled, declared_by, derived
from registry.routing.proof import Flaw, Proof
from registry.routing.prove import Known, prove

POLICY = Digest.of(b"policy")
NAMES = ("x-a", "x-b", "x-c")
VALUES = ("1", "2", "3")
ABSENT, OTHER = None, "?"

conditions = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES))
declarations = st.lists(
    st.builds(
        DeclaredHeader,
        name=st.sampled_from((*NAMES, "x-d")),
        values=st.sets(st.sampled_from(VALUES), min_size=1).map(lambda found: tuple(sorted(found))),
        required=st.booleans(),
    ),
    unique_by=lambda header: header.name,
).map(tuple)


def _routes(whens: Sequence[Mapping[str, str]]) -> tuple[Route, ...]:
    return tuple(
        Route(
            tenant="bank_a",
            name=f"r{at}",
            model="assistant",
            when=dict(when),
            adapter=f"a{at}",
            policy=POLICY,
        )
        for at, when in enumerate(whens)
    )


whole = st.lists(conditions, min_size=1, max_size=7).map(_routes)
routings = st.one_of(
    st.builds(
        lambda routes, headers: Routing(tenant="bank_a", revision=1, headers=headers, routes=routes),
        whole,
        declarations,
    ),
    whole.map(
        lambda routes: Routing(tenant="bank_a", revision=1, headers=derived(routes), routes=tuple(routes))
    ),
)


def known(routing: Routing) -> Known:
    return Known(
        tenants=frozenset({"bank_a", "retail_b"}),
        policies={POLICY: "bank_a"},
        aliases={
            ("bank_a", route.adapter, "live"): AliasState(
                tenant="bank_a",
                adapter=route.adapter,
                alias="live",
                version=Digest.of(route.adapter.encode()),
                epoch=1,
            )
            for route in routing.routes
        },
        versions={
            (digest := Digest.of(route.adapter.encode())): VersionState(
                version=digest, tenant="bank_a", adapter=route.adapter, base=POLICY, rank=4
            )
            for route in routing.routes
        },
    )


def requests(routing: Routing) -> Iterator[dict[str, list[str]]]:
    """All of them: a header absent, with each declared value, with another one, and twice."""
    headers = declared_by(routing)
    names = sorted({header.name for header in headers} | {n for route in routing.routes for n in route.when})
    values = {header.name: header.values for header in headers}
    options: list[list[list[str]]] = [
        [[], *([value] for value in values.get(name, ())), [OTHER], [OTHER, OTHER]] for name in names
    ]
    for chosen in product(*options):
        yield {name: sent for name, sent in zip(names, chosen, strict=True) if sent}


def answer(routing: Routing, request: Mapping[str, list[str]]) -> str:
    """The words of docs/concepts/routing.md, read by somebody who has not seen the code."""
    declared = {header.name: header for header in declared_by(routing)}
    tested = {name for route in routing.routes for name in route.when}
    for name in declared.keys() | tested:
        sent = request.get(name, [])
        allowed = declared[name].values if name in declared else ()
        if len(sent) > 1 or (sent and sent[0] not in allowed):
            return "refused"
        if not sent and name in declared and declared[name].required:
            return "refused"
    mattering = {name: sent[0] for name, sent in request.items() if name in tested}
    matching = [
        route
        for route in routing.routes
        if all(mattering.get(name) == value for name, value in route.when.items())
    ]
    exact = [route for route in matching if route.when == mattering]
    if len(exact) == 1:
        return exact[0].name
    recognised = {name for route in matching for name in route.when}
    return "ambiguous" if matching and recognised == set(mattering) else "refused"


def verdict(routing: Routing) -> Proof:
    return prove([routing], known(routing))


@given(routings)
def test_every_combination_is_in_one_case_with_its_outcome(routing: Routing) -> None:
    proof = verdict(routing)
    brute = Counter(answer(routing, request) for request in requests(routing))
    told: Counter[str] = Counter()
    for case in proof.cases:
        told[case.rule or ("ambiguous" if case.refusal is Refusal.AMBIGUOUS else "refused")] += (
            case.combinations
        )
    assert proof.combinations == brute.total()
    rules = {name for name in brute | told if name.startswith("r") and name != "refused"}
    assert {name: told[name] for name in rules} == {name: brute[name] for name in rules}


@given(routings)
def test_the_verdict_is_that_of_brute_force(routing: Routing) -> None:
    proof = verdict(routing)
    answers = Counter(answer(routing, request) for request in requests(routing))
    unreached = {route.name for route in routing.routes if not answers[route.name]}
    accused = {
        rule
        for finding in proof.findings
        for rule in finding.rules[: 2 if finding.flaw is Flaw.AMBIGUOUS else 1]
        if finding.flaw in (Flaw.SHADOWED, Flaw.UNDECLARED, Flaw.AMBIGUOUS)
    }
    assert unreached <= accused
    assert {f.rules[0] for f in proof.findings if f.flaw in (Flaw.SHADOWED, Flaw.UNDECLARED)} <= unreached
    flaws = {finding.flaw for finding in proof.findings}
    if answers["ambiguous"]:
        assert flaws & {Flaw.AMBIGUOUS, Flaw.SHADOWED}
    else:
        assert Flaw.AMBIGUOUS not in flaws
    if proof.holds:
        assert not unreached
        assert not answers["ambiguous"]


@given(routings)
def test_each_counterexample_shows_its_flaw(routing: Routing) -> None:
    for finding in verdict(routing).findings:
        if finding.headers is None:
            continue
        request = {name: [value] for name, value in finding.headers}
        told = answer(routing, request)
        if finding.flaw is Flaw.AMBIGUOUS:
            assert told == "ambiguous"
        elif finding.flaw in (Flaw.UNANSWERED, Flaw.UNDECLARED):
            assert told in ("refused", "ambiguous")
        elif finding.flaw is Flaw.SHADOWED:
            assert told != finding.rules[0]
            assert told in (*finding.rules[1:], "refused", "ambiguous")


@given(routings, st.data())
def test_choose_answers_as_its_page_says(routing: Routing, data: st.DataObject) -> None:
    request = data.draw(st.sampled_from(list(requests(routing))))
    rules = compiled(((route.when, route) for route in routing.routes), declared_by(routing))
    outcome = choose(rules, lambda name: request.get(name, []))
    told = outcome.rule.name if outcome.rule else "refused"
    expected = answer(routing, request)
    assert told == ("refused" if expected == "ambiguous" else expected)
    assert (outcome.refusal is Refusal.AMBIGUOUS) <= (expected == "ambiguous")


def forgiving(rules: Rules[Route], every: object) -> Outcome[Route]:
    """The mistake that other routers make: what nobody recognises gets the default rule."""
    outcome = choose(rules, every)  # type: ignore[arg-type]
    if outcome.rule is None and rules.exact.get((None,) * len(rules.deciding)):
        return Outcome(rules.exact[(None,) * len(rules.deciding)][0])
    return outcome


@given(routings)
def test_a_router_that_falls_back_to_the_default_is_found(routing: Routing) -> None:
    proof = prove([routing], known(routing), choose=forgiving)
    default = [route for route in routing.routes if not route.when]
    tested = any(route.when for route in routing.routes)
    found = [finding for finding in proof.findings if finding.flaw is Flaw.FALLS_THROUGH]
    assert bool(found) == bool(default and (tested or routing.headers))


@given(routings, st.data())
def test_a_planted_foreign_adapter_is_found(routing: Routing, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(routing.routes) - 1))
    routes = list(routing.routes)
    planted = routes[at] = routes[at].model_copy(update={"tenant": "retail_b"})
    spoilt = routing.model_copy(update={"routes": tuple(routes)})
    reached = any(answer(spoilt, request) == planted.name for request in requests(spoilt))
    proof = prove([spoilt], known(routing))
    named = {finding.rules[0] for finding in proof.findings if finding.flaw is Flaw.FOREIGN_ADAPTER}
    assert named == ({planted.name} if reached else set())
    assert not proof.holds
    assert "retail_b" not in str([finding.why for finding in proof.findings])


@given(routings, st.data())
def test_a_planted_foreign_version_is_found(routing: Routing, data: st.DataObject) -> None:
    facts = known(routing)
    victim = data.draw(st.sampled_from(sorted(facts.aliases)))
    foreign = Digest.of(b"foreign")
    state = VersionState(version=foreign, tenant="retail_b", adapter=victim[1], base=POLICY, rank=4)
    place = data.draw(st.sampled_from(["version", "canaries", "shadows"]))
    alias = facts.aliases[victim].model_dump(mode="json")
    alias[place] = {
        "version": foreign,
        "canaries": [{"version": foreign, "percent": 5}],
        "shadows": [foreign],
    }[place]
    crossed = Known(
        tenants=facts.tenants,
        policies=facts.policies,
        aliases={**facts.aliases, victim: AliasState.build(alias)},
        versions={**facts.versions, foreign: state},
    )
    before = {f.flaw for f in prove([routing], facts).findings}
    found = [f for f in prove([routing], crossed).findings if f.flaw is Flaw.FOREIGN_VERSION]
    assert Flaw.FOREIGN_VERSION not in before
    assert {f.rules[0] for f in found} == {r.name for r in routing.routes if r.adapter == victim[1]}
