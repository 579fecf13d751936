"""Tokens of an identity provider on the data plane, against a real provider on loopback."""

import asyncio
import timeit
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from registry.clock import ManualClock
from registry.identity.tokens import Issuer
from router.errors import InvalidApiKey, RouterNotReady
from router.tokens import Tokens
from server.api.jwks import fetch_url
from tests.support.identity_provider import AUDIENCE, ISSUER, Provider, jwk, provider
from tests.unit.router.driving import House, until


class Bench:
    def __init__(self, made: Provider, clock: ManualClock, **settings: Any) -> None:
        self.provider = made
        self.clock = clock
        self.now = 1000.0
        fetch = fetch_url(made.url + "/jwks")
        chosen = {"fresh": 0.02, "between": 0.01} | settings
        self.tokens = Tokens(Issuer(ISSUER, AUDIENCE), fetch, ticks=lambda: self.now, **chosen)

    def find(self, token: str) -> Any:
        return self.tokens.find(token, self.clock.now().timestamp()).principal

    async def heard(self, times: int = 1) -> None:
        """The provider was asked that much more often, and the last answer is in force."""
        wanted = self.provider.asked + times + 1
        await until(lambda: self.provider.asked >= wanted)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = ManualClock()
    with provider(clock) as made:
        found = Bench(made, clock)
        await found.tokens.start()
        await found.heard()
        try:
            yield found
        finally:
            await found.tokens.stop()


async def test_a_token_says_who_is_calling(bench: Bench) -> None:
    principal = bench.find(bench.provider.token(tenon_role="inference"))
    assert (principal.tenant, principal.role) == ("bank_a", "inference")
    assert principal.key == principal.line == "oidc:login.example.com/ada"
    admin = bench.provider.token(tenon_role="platform_admin", tenon_tenant=None)
    assert bench.find(admin) is None


@pytest.mark.parametrize(
    "forge",
    [
        lambda made: made.token(iss="https://login.example.com/realms/other"),
        lambda made: made.token(aud="elsewhere"),
        lambda made: made.token(exp=1),
        lambda made: made.token(tenon_tenant=None),
        lambda made: made.token(tenon_role="root"),
        lambda made: made.token("ed-2"),
        lambda made: made.token("ed-2", named="ed-1"),
        lambda made: made.token()[:-4] + "AAAA",
        lambda made: made.token() + "é",
        lambda _: "a.b.c",
    ],
)
async def test_whatever_is_wrong_with_a_token_is_one_refusal(
    bench: Bench, forge: Callable[[Provider], str]
) -> None:
    for _ in range(2):
        with pytest.raises(InvalidApiKey):
            bench.find(forge(bench.provider))


async def test_no_request_ever_asks_the_provider(bench: Bench) -> None:
    await bench.tokens.stop()
    asked = bench.provider.asked
    for number in range(50):
        with pytest.raises(InvalidApiKey):
            bench.find(bench.provider.token("ed-2", named=f"made-up-{number}"))
    assert bench.provider.asked == asked


async def test_made_up_key_ids_do_not_become_load_elsewhere() -> None:
    clock = ManualClock()
    with provider(clock) as made:
        bench = Bench(made, clock, between=5.0, fresh=60.0)
        await bench.tokens.start()
        await until(lambda: made.asked == 1)
        good = made.token()
        await until(lambda: _taken(bench, good))
        for number in range(50):
            with pytest.raises(InvalidApiKey):
                bench.find(made.token("ed-2", named=f"made-up-{number}"))
            await asyncio.sleep(0)
        assert made.asked == 1
        await bench.tokens.stop()


def _taken(bench: Bench, token: str) -> bool:
    try:
        bench.find(token)
    except (RouterNotReady, InvalidApiKey):
        return False
    return True


async def test_keys_come_and_go_with_the_provider(bench: Bench) -> None:
    old, new = bench.provider.token("ed-1"), bench.provider.token("rsa-1")
    assert _taken(bench, old)
    assert not _taken(bench, new)
    bench.provider.keys = [jwk("rsa-1")]
    await until(lambda: _taken(bench, new))
    assert not _taken(bench, old)  # though it was verified before


async def test_a_new_key_is_noticed_long_before_the_next_regular_question() -> None:
    clock = ManualClock()
    with provider(clock) as made:
        bench = Bench(made, clock, between=0.01, fresh=3600.0)
        await bench.tokens.start()
        await until(lambda: _taken(bench, made.token()))
        made.keys.append(jwk("ed-2"))
        await until(lambda: _taken(bench, made.token("ed-2")))
        await bench.tokens.stop()


async def test_a_token_ends_though_it_is_remembered(bench: Bench) -> None:
    token = bench.provider.token()
    assert _taken(bench, token)
    bench.clock.advance(600 + 29)  # a clock may be 30 s behind
    assert _taken(bench, token)
    bench.clock.advance(1)
    assert not _taken(bench, token)


async def test_keys_are_believed_for_a_while_without_the_provider_and_then_nobody_is(bench: Bench) -> None:
    token = bench.provider.token()
    assert _taken(bench, token)
    bench.provider.body = b"not a key set"
    await bench.heard()
    bench.now += 3600
    assert _taken(bench, token)
    bench.now += 1
    with pytest.raises(RouterNotReady):
        bench.find(token)
    bench.provider.body = None
    await until(lambda: _taken(bench, token))


async def test_before_the_provider_was_heard_nobody_is_known() -> None:
    tokens = Tokens(Issuer(ISSUER, AUDIENCE), lambda: b"")
    with pytest.raises(RouterNotReady):
        tokens.find("a.b.c", 0.0)


async def test_a_provider_that_failed_first_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    with provider(clock) as made:
        monkeypatch.setattr("router.tokens._FIRST_PAUSE", 0.01)
        bench = Bench(made, clock, between=30.0, fresh=3600.0)
        made.body = b"not a key set"
        await bench.tokens.start()
        await until(lambda: made.asked >= 2)
        with pytest.raises(RouterNotReady) as refused:
            bench.find(made.token())
        assert (b"retry-after", b"1") in refused.value.headers
        made.body = None
        await until(lambda: _taken(bench, made.token()))  # long before the 30 s between two questions
        await bench.tokens.stop()


async def test_a_key_that_is_missed_in_the_pause_is_asked_for_right_after_it() -> None:
    clock = ManualClock()
    with provider(clock) as made:
        bench = Bench(made, clock, between=0.2, fresh=3600.0)
        await bench.tokens.start()
        await until(lambda: _taken(bench, made.token()))
        made.keys.append(jwk("ed-2"))
        new = made.token("ed-2")
        assert not _taken(bench, new)  # in the pause, and never again until the provider was asked
        await until(lambda: made.asked >= 2)
        await until(lambda: "ed-2" in bench.tokens._keys)
        assert _taken(bench, new)
        await bench.tokens.stop()


async def test_what_is_remembered_is_bounded_and_cheap(bench: Bench) -> None:
    await bench.tokens.stop()
    bench.tokens._most = 10
    token = bench.provider.token()
    for number in range(30):
        assert _taken(bench, bench.provider.token(sub=f"user-{number}"))
        assert len(bench.tokens._known) <= 10
    bench.find(token)
    now = bench.clock.now().timestamp()
    best = min(timeit.repeat(lambda: bench.tokens.find(token, now), number=200, repeat=5)) / 200
    assert best < 20e-6  # verifying the signature alone takes five times that


async def test_over_http_a_token_is_as_good_as_a_key(tmp_path: Path) -> None:
    clock = ManualClock()
    with provider(clock) as made:
        tokens = Tokens(Issuer(ISSUER, AUDIENCE), fetch_url(made.url), fresh=0.02, between=0.01)
        house = House(tmp_path, tokens=tokens)
        house.scene.engine()
        key = house.scene.serve("bank_a")
        await house.app.start()
        try:
            await house.publish()
            token = made.token(tenon_role="inference")
            await until(lambda: made.asked >= 2)
            answered = await house.ask(token)
            assert answered.status == 200
            assert house.outcome(answered).key == "oidc:login.example.com/ada"
            listed = (await house.get("/v1/models", token)).json()
            assert listed == (await house.get("/v1/models", key)).json()
            receipt = await house.get(f"/v1/receipts/{answered.record}", token)
            assert receipt.status == 200

            unknown = made.token(tenon_role="inference", tenon_tenant="nobody")
            forged = made.token("ed-2", named="ed-1")
            refusals = [await house.ask(shown) for shown in (unknown, forged, "tn_" + "0" * 60, "a.b.c")]
            assert {(refusal.status, refusal.body) for refusal in refusals} == {(401, refusals[0].body)}
            trainer = made.token(tenon_role="trainer")
            assert (await house.ask(trainer)).code == "role_forbidden"
            admin = made.token(tenon_role="platform_admin", tenon_tenant=None)
            assert (await house.ask(admin)).code == "role_forbidden"
            assert (await house.ask(token, headers={"X-Tenant-ID": "retail_b"})).code == "tenant_mismatch"

            suspended = house.scene.tenants["bank_a"].model_copy(update={"suspended": True})
            house.scene.tenants["bank_a"] = suspended
            await house.publish()
            assert (await house.ask(token)).code == "tenant_suspended"
        finally:
            await house.app.stop()


async def test_without_an_identity_provider_a_token_is_an_invalid_key(house: House, bank: str) -> None:
    assert (await house.ask("e30.e30.c2ln")).code == "invalid_api_key"
    assert (await house.ask(bank)).status == 200
