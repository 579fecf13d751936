"""Publishing rules: whole, numbered, proved, and remembered."""

import pytest

from registry.catalog.projection import ROUTES_REPLACED
from registry.digests import Digest
from registry.errors import PolicyNotFound
from registry.models import DeclaredHeader, Routing
from registry.routing.errors import RouteInvalid, RouteRefused, RoutingChanged
from registry.routing.form import MAX_ROUTES
from registry.routing.proof import Finding, Flaw
from tests.support.registries import NAME, World, route

INDUSTRY = DeclaredHeader(name="x-industry", values=("banking", "retail"), required=True)
VERSIONED = {"x-policy-version": "v3"}


def test_all_rules_or_none(world: World) -> None:
    policy = world.policy()
    good = [route(policy), route(policy, name="v3", when=VERSIONED)]
    first = world.catalog.publish_routing("bank_a", routes=good, actor="test")
    assert first == world.catalog.routing("bank_a")
    assert (first.revision, first.routes) == (1, tuple(good))
    assert first.headers == (DeclaredHeader(name="x-policy-version", values=("v3",)),)
    size = world.catalog.snapshot().size
    assert world.catalog.publish_routing("bank_a", routes=good, actor="test") == first
    with pytest.raises(RouteRefused):
        world.catalog.publish_routing("bank_a", routes=[good[0], route(policy, name="b")], actor="test")
    assert world.catalog.snapshot().size == size
    assert world.catalog.routing("bank_a") == first
    world.catalog.publish_routing("bank_a", routes=good[1:], actor="test")
    assert world.catalog.routing("bank_a").routes == tuple(good[1:])
    assert world.catalog.routing("retail_b") == Routing(tenant="retail_b", revision=0)
    world.catalog.publish_routing("bank_a", routes=[], actor="test")
    assert not any(routing.routes for routing in world.catalog.snapshot().routings)
    assert world.catalog.verify() == []


def test_a_publication_names_the_revision_that_it_saw(world: World) -> None:
    policy = world.policy()
    world.catalog.publish_routing("bank_a", routes=[route(policy)], expect_revision=0, actor="first")
    for seen in (0, 2):
        with pytest.raises(RoutingChanged) as refused:
            world.catalog.publish_routing("bank_a", routes=[], expect_revision=seen, actor="second")
        assert refused.value.facts["revision"] == 1
    world.catalog.publish_routing("bank_a", routes=[], expect_revision=1, actor="second")
    assert [(move.actor, move.routing.revision) for move in world.catalog.routings("bank_a")] == [
        ("first", 1),
        ("second", 2),
    ]


def test_declared_headers_are_kept_sorted(world: World) -> None:
    policy = world.policy()
    rules = [route(policy, name=value, when={"x-industry": value}) for value in INDUSTRY.values]
    shuffled = [
        DeclaredHeader(name="x-region", values=("us", "eu")),
        INDUSTRY.model_copy(update={"values": ("retail", "banking")}),
    ]
    published = world.catalog.publish_routing("bank_a", routes=rules, headers=shuffled, actor="test")
    assert published.headers == (INDUSTRY, DeclaredHeader(name="x-region", values=("eu", "us")))


def test_history_reads_logs_from_before_routings_were_documents(world: World) -> None:
    old = [route(world.policy(), when=VERSIONED)]
    with world.catalog._change_by("an older Tenon") as change:
        rules = [each.model_dump(mode="json") for each in old]
        change.write(ROUTES_REPLACED, "bank_a", {"routes": rules})
    now = world.catalog.publish_routing("bank_a", routes=[], expect_revision=1, actor="test")
    first, second = world.catalog.routings("bank_a")
    assert second.routing == now
    assert first.routing == Routing(
        tenant="bank_a",
        revision=1,
        headers=(DeclaredHeader(name="x-policy-version", values=("v3",)),),
        routes=tuple(old),
    )
    assert world.catalog.verify() == []


def test_policies_are_the_tenants_own(world: World) -> None:
    foreign = world.policy("retail_b")
    answers = []
    for policy in (foreign, Digest.of(b"nothing")):
        with pytest.raises(PolicyNotFound) as refused:
            world.catalog.publish_routing("bank_a", routes=[route(policy)], actor="test")
        answers.append(refused.value.message.replace(policy, "…"))
    assert answers[0] == answers[1]  # "not yours" and "does not exist" are the same answer


def test_a_route_of_another_tenant_is_refused(world: World) -> None:
    policy = world.policy("retail_b")
    with pytest.raises(RouteInvalid) as refused:
        world.catalog.publish_routing("retail_b", routes=[route(policy)], actor="test")
    assert "bank_a" not in refused.value.message


@pytest.mark.parametrize(
    "when",
    [
        {"x-tenant-id": "bank_a"},
        {"X-Region": "eu"},
        {"authorization": "x"},
        {"x-": "v"},
        {"x--a": "v"},
        {"x-a_b": "v"},
        {"x-a\n": "v"},
        {"x-" + "a" * 63: "v"},
        {"x-a": ""},
        {"x-a": " v"},
        {"x-a": "v "},
        {"x-a": "v\r\nx"},
        {"x-a": "é"},
        {"x-a": "v" * 257},
        {f"x-{number}": "v" for number in range(17)},
    ],
)
def test_conditions_that_no_header_can_meet_safely(world: World, when: dict[str, str]) -> None:
    rules = [route(world.policy(), when=when)]
    with pytest.raises(RouteInvalid):
        world.catalog.publish_routing("bank_a", routes=rules, actor="test")
    with pytest.raises(RouteInvalid):  # however they are declared
        world.catalog.publish_routing("bank_a", routes=rules, headers=[INDUSTRY], actor="test")


@pytest.mark.parametrize(
    "headers",
    [
        [INDUSTRY, INDUSTRY],
        [DeclaredHeader(name="x-tenant-id", values=("bank_a",))],
        [DeclaredHeader(name="X-Industry", values=("banking",))],
        [DeclaredHeader(name="x-industry", values=())],
        [DeclaredHeader(name="x-industry", values=("banking", "banking"))],
        [DeclaredHeader(name="x-industry", values=("banking ",))],
        [DeclaredHeader(name="x-industry", values=tuple(map(str, range(1001))))],
        [DeclaredHeader(name=f"x-{number}", values=("1",)) for number in range(33)],
    ],
)
def test_declarations_that_mean_nothing(world: World, headers: list[DeclaredHeader]) -> None:
    with pytest.raises(RouteInvalid) as refused:
        world.catalog.publish_routing("bank_a", routes=[route(world.policy())], headers=headers, actor="test")
    assert refused.value.facts["faults"]


def test_beyond_the_bounds_nothing_is_proved(world: World) -> None:
    policy = world.policy()
    many = [route(policy, name=f"r{at}", when={"x-a": str(at)}) for at in range(MAX_ROUTES + 1)]
    with pytest.raises(RouteInvalid, match="at most 500"):
        world.catalog.publish_routing("bank_a", routes=many, actor="test")
    wide = [route(policy, name=f"r{at}", when={f"x-h{at}": "1"}) for at in range(33)]
    with pytest.raises(RouteInvalid, match="test 33 headers, at most 32"):
        world.catalog.publish_routing("bank_a", routes=wide, headers=[INDUSTRY], actor="test")
    with pytest.raises(RouteInvalid, match="two routes are called r1"):
        world.catalog.publish_routing("bank_a", routes=[many[1], many[1]], actor="test")


def test_a_refusal_names_every_flaw_and_a_request_that_shows_it(world: World) -> None:
    policy = world.policy()
    rules = [
        route(policy),
        route(policy, name="banking", when={"x-industry": "banking"}),
        route(policy, name="eu", when={"x-region": "eu"}),
    ]
    with pytest.raises(RouteRefused) as refused:
        world.catalog.publish_routing("bank_a", routes=rules, headers=[INDUSTRY], actor="test")
    findings = refused.value.facts["findings"]
    assert isinstance(findings, tuple)
    told = {
        (finding.flaw, finding.rules[:1], finding.headers)
        for finding in findings
        if isinstance(finding, Finding)
    }
    assert (Flaw.SHADOWED, ("default",), (("x-industry", "banking"),)) in told
    assert (Flaw.UNDECLARED, ("eu",), (("x-region", "eu"),)) in told
    assert (Flaw.UNANSWERED, (), (("x-industry", "retail"),)) in told
    assert "send x-industry: banking" in str(refused.value.facts["faults"])
    assert world.catalog.routing("bank_a").revision == 0


def test_what_is_in_force_is_proved_with_what_it_leads_to(world: World) -> None:
    policy = world.policy()
    world.catalog.publish_routing("bank_a", routes=[route(policy)], actor="test")
    (finding,) = world.catalog.prove_routing("bank_a").findings
    assert (finding.flaw, finding.severity) == (Flaw.NOT_PUSHED, "warning")
    version = world.promoted()
    proof = world.catalog.prove_routing()
    assert proof.findings == ()
    assert (proof.tenants, proof.combinations) == (2, 1)
    world.catalog.revoke(version, reason="its data was wrong", actor="test")
    assert [finding.flaw for finding in world.catalog.prove_routing("bank_a").findings] == [Flaw.REVOKED]


def test_a_trial_changes_nothing(world: World) -> None:
    policy, size = world.policy(), world.catalog.snapshot().size
    trial = world.catalog.prove_routing("bank_a", routes=[route(policy), route(policy, name="b")])
    assert [finding.flaw for finding in trial.errors] == [Flaw.AMBIGUOUS]
    assert world.catalog.snapshot().size == size
    foreign = world.catalog.prove_routing("bank_a", routes=[route(world.policy("retail_b"))])
    assert [finding.flaw for finding in foreign.errors] == [Flaw.FOREIGN_POLICY]


def test_an_alias_that_was_turned_to_a_foreign_version_is_found(world: World) -> None:
    """No call can do that: somebody wrote into the database."""
    world.catalog.publish_routing("bank_a", routes=[route(world.policy())], actor="test")
    world.promoted(NAME)
    theirs = world.promoted(type(NAME)("retail_b", "assistant"))
    with world.database.write() as rows:
        state = rows.aliases.get(NAME, "live")
        assert state is not None
        rows.aliases.put(state.model_copy(update={"version": theirs}), entry=0)
    for proof in (world.catalog.prove_routing(), world.catalog.prove_routing("bank_a")):
        (finding,) = proof.errors
        assert (finding.flaw, finding.headers) == (Flaw.FOREIGN_VERSION, ())
        assert "retail" not in finding.why
