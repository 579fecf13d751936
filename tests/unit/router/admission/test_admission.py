"""Limits of tenants and keys: reserved before anything is sent, settled by what was used."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from registry.clock import ManualClock
from registry.models import Quota, Role
from router.admission import FREE, Admission, Hours, Ticket
from router.errors import BudgetSpent, Limited, RateLimited, RequestOverLimit
from router.metering import Usage
from router.tables import Principal, Tables, compile_tables
from router.testing import Scene

PROMPT = 36
"""Bytes; with what a template adds, 100 tokens."""


@dataclass
class Desk:
    """One admission, and bank_a that asks."""

    scene: Scene = field(default_factory=Scene)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.secret = self.scene.key("bank_a")
        self.ticks = 0.0
        self.admission = Admission(Hours(wall=self.wall, ticks=lambda: self.ticks))
        self.tables: Tables = compile_tables(self.scene.snapshot())

    def wall(self) -> datetime:
        return self.clock.now()

    def limit(self, *, key: Quota | None = None, **limits: Any) -> None:
        tenant = self.scene.tenants["bank_a"]
        self.scene.tenants["bank_a"] = tenant.model_copy(update={"quota": Quota(**limits)})
        self.scene.keys[0] = self.scene.keys[0].model_copy(update={"quota": key})
        self.tables = compile_tables(self.scene.snapshot())

    def ask(self, tokens: int = 50, *, key: int = 0, prompt: int = PROMPT) -> Ticket:
        principal = Principal("bank_a", self.scene.keys[key].id, Role.INFERENCE)
        return self.admission.admit(principal, self.tables, prompt, tokens)

    def headers(self, ticket: Ticket) -> dict[str, str]:
        return {
            name.decode().removeprefix("x-ratelimit-"): value.decode() for name, value in ticket.headers()
        }

    def refused(self, kind: type[Limited], tokens: int = 50, *, key: int = 0) -> dict[str, str]:
        with pytest.raises(kind) as error:
            self.ask(tokens, key=key)
        return {name.decode(): value.decode() for name, value in error.value.headers}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_without_limits_nothing_is_held(desk: Desk) -> None:
    assert desk.ask() is FREE
    assert desk.admission.accounts == {}
    assert FREE.headers() == []


def test_requests_per_minute(desk: Desk) -> None:
    desk.limit(requests_per_minute=3)
    for left in (2, 1, 0):
        ticket = desk.ask()
        assert desk.headers(ticket) == {
            "limit-requests": "3",
            "remaining-requests": str(left),
            "reset-requests": "1m5s",
        }
        ticket.settle(Usage(1, 1))
    headers = desk.refused(RateLimited)
    assert headers["retry-after"] == "65"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    desk.ticks += 64.9
    assert desk.refused(RateLimited)["retry-after"] == "1"
    desk.ticks += 0.2
    desk.ask()


def test_tokens_are_reserved_before_and_settled_after(desk: Desk) -> None:
    desk.limit(tokens_per_minute=1000)
    first = desk.ask(400)
    assert desk.headers(first)["remaining-tokens"] == "500"
    assert desk.refused(RateLimited, 401)["retry-after"] == "65"
    first.settle(Usage(20, 80))
    assert desk.headers(first)["remaining-tokens"] == "900"
    first.settle(Usage(20, 800))  # once
    first.forget()
    assert desk.headers(first)["remaining-tokens"] == "900"
    desk.ask(401)


def test_more_than_was_reserved_counts_too(desk: Desk) -> None:
    desk.limit(tokens_per_minute=1000)
    desk.ask(50).settle(Usage(2000, 50))
    assert desk.refused(RateLimited)["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.parametrize(("produced", "left"), [(None, 400), (30, 870), (10_000, 400)])
def test_a_cut_answer_counts_what_came_or_all_that_was_reserved(
    desk: Desk, produced: int | None, left: int
) -> None:
    desk.limit(tokens_per_minute=1000)
    ticket = desk.ask(500)
    ticket.settle(None, produced)
    assert desk.headers(ticket)["remaining-tokens"] == str(left)


def test_what_reached_no_engine_never_counted(desk: Desk) -> None:
    desk.limit(requests_per_minute=1, tokens_per_minute=1000, tokens_per_day=1000, concurrent_requests=1)
    for _ in range(5):
        desk.ask(900).forget()
    desk.ask(900)


def test_requests_at_a_time(desk: Desk) -> None:
    desk.limit(concurrent_requests=2)
    first, _ = desk.ask(), desk.ask()
    assert desk.refused(RateLimited)["retry-after"] == "1"
    first.settle(Usage(1, 1))
    first.settle(Usage(1, 1))
    desk.ask()
    desk.refused(RateLimited)


def test_a_daily_budget_comes_back_at_midnight_utc(desk: Desk) -> None:
    desk.limit(tokens_per_day=1000)
    desk.ask(800).settle(None)
    headers = desk.refused(BudgetSpent, 50)
    assert headers["retry-after"] == str(24 * 3600)
    assert headers["x-should-retry"] == "false"
    assert headers["x-ratelimit-reset-tokens"] == "24h0m0s"
    desk.ticks += 24 * 3600 - 1
    desk.refused(BudgetSpent, 50)
    desk.ticks += 1
    desk.ask(50)


def test_a_key_has_limits_of_its_own_within_its_tenants(desk: Desk) -> None:
    desk.scene.key("bank_a")
    desk.limit(requests_per_minute=3, key=Quota(requests_per_minute=1))
    ticket = desk.ask()
    assert desk.headers(ticket)["limit-requests"] == "1"
    desk.refused(RateLimited)
    desk.ask(key=1)
    assert desk.headers(desk.ask(key=1))["remaining-requests"] == "0"
    assert desk.refused(RateLimited, key=1)["x-ratelimit-limit-requests"] == "3"


def test_a_refusal_reserves_nothing(desk: Desk) -> None:
    desk.limit(requests_per_minute=5, key=Quota(tokens_per_minute=100))
    desk.ask(1).settle(Usage(100, 0))
    for _ in range(10):
        desk.refused(RateLimited, 1)
    assert desk.refused(RateLimited, 1)["x-ratelimit-remaining-requests"] == "4"
    assert desk.admission.accounts["tenant/bank_a"].running == 0
    assert desk.admission.refused == {"rate_limit_exceeded": 11}


def test_a_rotated_key_shares_the_limits_of_its_line(desk: Desk) -> None:
    desk.scene.key("bank_a")
    desk.limit(key=Quota(requests_per_minute=1))
    desk.scene.keys[1] = desk.scene.keys[1].model_copy(
        update={"root": desk.scene.keys[0].id, "quota": desk.scene.keys[0].quota}
    )
    desk.tables = compile_tables(desk.scene.snapshot())
    desk.ask()
    desk.refused(RateLimited, key=1)


def test_what_never_fits_is_no_429(desk: Desk) -> None:
    desk.limit(tokens_per_minute=1000)
    assert "retry-after" not in desk.refused(RequestOverLimit, 1001)
    desk.limit(tokens_per_day=1000)
    desk.refused(RequestOverLimit, 1001)


def test_an_estimate_alone_refuses_nobody_for_ever(desk: Desk) -> None:
    desk.limit(tokens_per_minute=1000)
    ticket = desk.ask(10, prompt=50_000)
    assert desk.headers(ticket)["remaining-tokens"] == "0"
    ticket.settle(Usage(300, 10))
    assert desk.headers(ticket)["remaining-tokens"] == "690"


@pytest.mark.parametrize(
    "what", ["requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrent_requests"]
)
def test_nothing_passes_a_limit_of_zero(desk: Desk, what: str) -> None:
    limits: dict[str, Any] = {what: 0}
    desk.limit(**limits)
    for tokens in (0, 1):
        with pytest.raises(Limited):
            desk.ask(tokens)


def test_counts_stay_when_limits_change(desk: Desk) -> None:
    desk.limit(requests_per_minute=2)
    desk.ask()
    desk.ask()
    desk.limit(requests_per_minute=3)
    desk.ask()
    desk.refused(RateLimited)
    desk.limit(tokens_per_minute=1000)
    old = desk.ask()
    desk.limit(tokens_per_minute=1000, tokens_per_day=1000)
    old.settle(Usage(0, 0))
    assert desk.headers(desk.ask(100))["remaining-tokens"] == "800"


def test_a_clock_that_goes_back_frees_nothing_twice(desk: Desk) -> None:
    hours = Hours(wall=desk.wall, ticks=lambda: desk.ticks)
    desk.admission = Admission(hours)
    desk.limit(tokens_per_day=1000, requests_per_minute=1)
    desk.clock.advance(3600)
    hours.correct()
    desk.ask(800).settle(None)
    for _ in range(3):
        desk.clock = ManualClock()  # yesterday's midnight again
        hours.correct()
        desk.refused(BudgetSpent, 50)
    desk.limit(requests_per_minute=1)
    desk.refused(RateLimited)
    desk.ticks += 130
    desk.ask()


def test_keys_of_nobody_known_share_their_tenants_limits(desk: Desk) -> None:
    """As identity providers' tokens do."""
    desk.limit(requests_per_minute=1)
    desk.admission.admit(Principal("bank_a", "somebody", Role.INFERENCE), desk.tables, 1, 1)
    with pytest.raises(RateLimited):
        desk.admission.admit(Principal("bank_a", "somebody-else", Role.INFERENCE), desk.tables, 1, 1)


def test_bytes_of_a_token_are_bounded(desk: Desk) -> None:
    for bad in (0.0, 0.9, 4.1):
        with pytest.raises(ValueError, match="token_bytes"):
            Admission(Hours(wall=desk.wall, ticks=lambda: 0.0), token_bytes=bad)
