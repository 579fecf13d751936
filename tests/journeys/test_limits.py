"""Limits over real HTTP and two router processes: bursts, streams, and keys."""

import asyncio
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from registry.models import Quota, Role
from tests.journeys.commands import ROOT, tenon
from tests.journeys.conftest import Served
from tests.journeys.test_revocation import another_router, until

QUESTION = {"model": "assistant", "messages": [{"role": "user", "content": "pay Norvik"}], "max_tokens": 64}


@pytest.fixture(scope="module")
def routers(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with another_router(served, tmp_path_factory.mktemp("limits")) as second:
        yield [served.url, second]


@pytest.fixture
def tenant(served: Served) -> Iterator[str]:
    """One whose limits are gone afterwards."""
    yield "saas_c"
    served.catalog.set_quota("saas_c", Quota(), actor="test")


def ask(served: Served, url: str, tenant: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {served.keys[tenant]}"}
    return httpx.post(url + "/v1/chat/completions", json=QUESTION, headers=headers, timeout=30)


def limited(served: Served, routers: list[str], tenant: str, limit: int) -> bool:
    """Whether all routers know the limit."""
    return all(
        ask(served, url, tenant).headers.get("x-ratelimit-limit-requests") == str(limit) for url in routers
    )


def test_one_limit_for_all_routers(served: Served, routers: list[str], tenant: str) -> None:
    done = tenon("tenant", "quota", tenant, "--requests-per-minute", "40", "-w", str(served.workspace.root))
    assert done.code == 0, done.err
    until(lambda: limited(served, routers, tenant, 40), 10)
    passed = 0
    for _ in range(60):  # by turns, and slowly enough for the routers to hear of each other
        for url in routers:
            answer = ask(served, url, tenant)
            if answer.status_code == 429:
                assert answer.json()["error"]["code"] == "rate_limit_exceeded"
                assert 1 <= int(answer.headers["retry-after"]) <= 65
            passed += answer.status_code == 200
        time.sleep(0.05)
        if answer.status_code == 429:
            break
    assert answer.status_code == 429
    # What one lets through within an exchange, the other cannot know: here about ten turns.
    assert passed <= 40 + 20
    until(lambda: all(ask(served, url, tenant).status_code == 429 for url in routers), 5)


async def test_a_burst_over_real_connections(served: Served, tenant: str) -> None:
    served.catalog.set_quota(tenant, Quota(concurrent_requests=1), actor="test")
    headers = {"Authorization": f"Bearer {served.keys[tenant]}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers, timeout=30) as client:

        async def burst() -> list[int]:
            answers = await asyncio.gather(
                *(client.post("/v1/chat/completions", json=QUESTION) for _ in range(20))
            )
            return [answer.status_code for answer in answers]

        async with asyncio.timeout(15):
            while 429 not in (found := await burst()):  # until the router knows
                pass
        assert set(found) == {200, 429}
        assert (await client.post("/v1/chat/completions", json=QUESTION)).status_code == 200


def test_the_guide_says_what_is_true(served: Served) -> None:
    """Its commands run as they are written, for a key that exists, and say what it says."""
    text = (ROOT / "docs/guides/limits.md").read_text()
    (script,) = re.findall(r"```console\n(.*?)```", text, re.S)
    key, _ = served.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    steps = re.findall(r"^\$ tenon (.*)\n(.*)$", script.replace("00112233aabbccdd", key.id), re.M)
    assert len(steps) == 3
    try:
        for command, said in steps:
            done = tenon(*command.split(), "-w", str(served.workspace.root))
            assert (done.code, done.err.strip()) == (0, said)
        assert served.catalog.tenant("bank_a").quota == Quota(
            requests_per_minute=600,
            tokens_per_minute=200_000,
            tokens_per_day=5_000_000,
            concurrent_requests=50,
            weight=2,
        )
        assert served.catalog.key(key.id).quota == Quota(tokens_per_day=100_000)
    finally:
        served.catalog.set_quota("bank_a", Quota(), actor="test")


def test_a_key_of_its_own_limits(served: Served, tenant: str) -> None:
    key = served.keys[tenant].split("_")[1]
    at = ("-w", str(served.workspace.root))
    done = tenon("key", "quota", key, "--tokens-per-day", "0", *at)
    assert done.code == 0, done.err
    until(lambda: ask(served, served.url, tenant).status_code == 400, 10)
    assert ask(served, served.url, tenant).json()["error"]["code"] == "request_over_limit"
    assert tenon("key", "quota", key, "--tokens-per-day", "unlimited", *at).code == 0
    until(lambda: ask(served, served.url, tenant).status_code == 200, 10)
