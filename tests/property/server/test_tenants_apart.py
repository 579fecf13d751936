"""No endpoint returns or changes another tenant's rows, whatever is asked in whatever order by whatever role.

The endpoints come from the API's own description, so a new one is asked here without a word about it. Before
and after each request the other tenant's rows are compared, in every table; each answer is searched for what
is the other tenant's; and each request that names something of the other tenant's is made again with a name
that nobody has: both must be answered alike.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from registry.digests import Digest
from tests.property.server.test_fuzzed_api import DOCUMENT
from tests.support.drawn_requests import Drawn, Operation, Requests, operations
from tests.support.two_tenants import MARKS, TENANT_ROLES, TwoTenants, pool, readable, two_tenants

OPERATIONS = operations(DOCUMENT)
ROLES = (*(str(role) for role in TENANT_ROLES), "platform_admin", "service", "nobody")
COUNTS_FOR_ALL = "POST /api/v1/usage"
"""The one request that is about tenants without one in its path: a router's counts."""
KEY = "Idempotency-Key"
"""Of the first request: under it the second one would be refused as another."""
QUIET = settings(
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Watched:
    """Requests to a registry of two tenants, and what each of them may have heard of the other."""

    def __init__(self, bench: TwoTenants) -> None:
        self.bench = bench
        self.requests = Requests(DOCUMENT, pool(bench))
        self.told: dict[str, str] = dict.fromkeys(MARKS, "")
        """Everything that the tenant's callers ever said: hearing that again is no news."""
        self.made: dict[str, str] = dict.fromkeys(MARKS, "")
        """What of it was taken: a tenant may have begun an upload by the digest of another's."""
        self.answers: Counter[tuple[str, int]] = Counter()

    def draw(self, data: st.DataObject, operation: Operation) -> tuple[Drawn, str, str]:
        tenant = data.draw(st.sampled_from(sorted(MARKS)), "tenant")
        roles = st.one_of(st.sampled_from(operation.roles), st.sampled_from(ROLES))
        role = data.draw(roles, "role")
        whose = data.draw(st.sampled_from([tenant, tenant, tenant, _other(tenant), "nobody_x"]), "whose")
        drawn = data.draw(self.requests.of(operation, {"tenant": whose}), "request")
        return drawn, role, tenant

    def ask(self, drawn: Drawn, role: str, tenant: str) -> None:
        about = drawn.parameters.get("tenant")
        if role in ("platform_admin", "service"):
            # Of the platform, and still: what is done to one tenant is done to no other.
            watched = [other for other in MARKS if other != about and str(drawn.operation) != COUNTS_FOR_ALL]
        else:
            watched = [other for other in MARKS if other != tenant or role == "nobody"]
        before = {other: self.bench.dump(other) for other in watched}
        platform = self.bench.dump(None)
        self.told[tenant] += drawn.text()
        answer = self.bench.send(drawn, role, tenant)
        self.answers[str(drawn.operation), answer.status_code] += 1
        assert answer.status_code < 500, answer.text
        if answer.status_code < 300 and drawn.operation.method != "GET":
            self.made[tenant] += drawn.text()
        for other in watched:
            assert self.bench.dump(other) == before[other]
        if role in TENANT_ROLES or role == "nobody":
            assert self.bench.dump(None) == platform
            self.look_for_leaks(drawn, answer, role, tenant)
        self.heal()

    def look_for_leaks(self, drawn: Drawn, answer: Any, role: str, tenant: str) -> None:
        other = _other(tenant)
        if drawn.operation.of_tenant and role != "nobody" and drawn.parameters["tenant"] != tenant:
            assert answer.status_code == 404
            assert drawn.operation.method == "HEAD" or _code(answer) == "tenant_not_found"
        said = readable(answer)
        ids = self.bench.ids(other)
        assert MARKS[other] not in said.lower()
        assert not {known for known in ids if known in said and known not in self.told[tenant]}
        assert other not in said or other in self.told[tenant]
        self.ask_for_nobody_s(drawn, answer, role, tenant, ids)

    def ask_for_nobody_s(self, drawn: Drawn, answer: Any, role: str, tenant: str, ids: set[str]) -> None:
        """The same about what does not exist at all."""
        other = _other(tenant)
        named = {known for known in ids if known in drawn.text()}
        swaps = {known: _nobody_s(known) for known in named} | {other: "nobody_x"}
        twin = _without_key(drawn.mapped(lambda text: swaps.get(text, text)))
        kept = "idempotency_key_reused" in answer.text or "idempotency-replayed" in answer.headers
        changed = answer.status_code < 300 and drawn.operation.method != "GET"
        own = any(known in self.made[tenant] for known in named)
        if kept or changed or own or _without_key(drawn).text() == twin.text():
            return
        second = self.bench.send(twin, role, tenant)
        assert second.status_code == answer.status_code
        assert _alike(answer.text, swaps) == _alike(second.text, swaps)

    def heal(self) -> None:
        """A platform admin may suspend a tenant, and then nobody of it could ask anything more."""
        for tenant in MARKS:
            if self.bench.world.catalog.tenant(tenant).suspended:
                self.bench.world.catalog.resume_tenant(tenant, actor="test")


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with two_tenants() as bench:
        yield Watched(bench)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_each_endpoint_keeps_two_tenants_apart(watched: Watched, operation: Operation) -> None:
    @settings(QUIET, max_examples=4)
    @given(data=st.data())
    def asked(data: st.DataObject) -> None:
        watched.ask(*watched.draw(data, operation))

    asked()


GUESSED = ("version", "digest", "key", "proposal")
"""Path parameters that are ids: known, they could open what they name."""
GUESSING = [
    operation
    for operation in OPERATIONS
    if operation.of_tenant and any(f"{{{name}}}" in operation.path for name in GUESSED)
]


@pytest.mark.parametrize("operation", GUESSING, ids=str)
def test_no_guess_opens_what_is_another_tenant_s(watched: Watched, operation: Operation) -> None:
    """Every id of the other tenant in every place for an id, by the tenant's most powerful role."""
    pool = watched.requests.pool
    guesses = sorted(
        {*pool.named["key"], *pool.named["proposal"], *pool.digests} & watched.bench.ids("retail_b")
    )
    role = next(role for role in ROLES if role in operation.roles)

    @settings(QUIET, max_examples=1)
    @given(data=st.data())
    def guessed(data: st.DataObject) -> None:
        for guess in guesses:
            ids = dict.fromkeys(GUESSED, guess)
            fixed = {"tenant": "bank_a", "adapter": "assistant", **ids}
            watched.ask(data.draw(watched.requests.of(operation, fixed)), role, "bank_a")

    assert len(guesses) > 8
    guessed()


class Anything(RuleBasedStateMachine):
    """Any endpoint after any other, from a fresh registry each time."""

    answers: ClassVar[Counter[tuple[str, int]]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.watched = Watched(self.stack.enter_context(two_tenants()))

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(OPERATIONS), "operation")
        self.watched.ask(*self.watched.draw(data, operation))

    def teardown(self) -> None:
        Anything.answers.update(self.watched.answers)
        self.stack.close()


def test_no_order_of_requests_mixes_two_tenants() -> None:
    Anything.answers.clear()
    run_state_machine_as_test(Anything, settings=settings(QUIET, max_examples=6, stateful_step_count=25))
    done = {operation for operation, status in Anything.answers if status < 300}
    assert len(done) > 10, "too few requests did anything for the test to mean something"


def test_the_watch_sees_what_it_is_there_to_see() -> None:
    """The negative control: rows that change, marks and ids in an answer, and an endpoint that tells."""
    with two_tenants() as bench:
        before = bench.dump("retail_b")
        bench.world.catalog.rename_tenant("retail_b", "Changed", actor="test")
        assert bench.dump("retail_b") != before
        assert bench.dump("bank_a") == bench.dump("bank_a") != bench.dump("retail_b")
        foreign = bench.client.get(
            "/api/v1/tenants/retail_b/keys", headers=bench.headers("tenant_admin", "retail_b")
        )
        watch = Watched(bench)
        (operation,) = (each for each in OPERATIONS if str(each) == "GET /api/v1/tenants/{tenant}/keys")
        drawn = Drawn(operation, {"tenant": "bank_a"}, {}, {})
        with pytest.raises(AssertionError):
            watch.look_for_leaks(drawn, foreign, "tenant_admin", "bank_a")
        assert bench.ids("retail_b") & {key.id for key in bench.world.catalog.keys("retail_b")}


def _without_key(drawn: Drawn) -> Drawn:
    return replace(drawn, headers={name: value for name, value in drawn.headers.items() if name != KEY})


def _other(tenant: str) -> str:
    (other,) = set(MARKS) - {tenant}
    return other


def _code(answer: Any) -> object:
    return answer.json().get("code")


def _nobody_s(known: str) -> str:
    made = Digest.of(known.encode())
    return str(made) if known.startswith("sha256:") else made.hex[:16]


def _alike(text: str, swaps: dict[str, str]) -> str:
    for one, two in swaps.items():
        for spelling in (one, two, one[:19], two[:19]):  # messages may shorten a digest
            text = text.replace(spelling, "…")
    return text
