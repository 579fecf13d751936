"""What tenants used, from their requests to ``tenon usage``, over a router that is killed."""

import json
import signal
from pathlib import Path
from typing import Any

import httpx

from tests.journeys.commands import tenon
from tests.journeys.conftest import Served
from tests.journeys.test_revocation import another_router

QUESTION = {"model": "assistant", "messages": [{"role": "user", "content": "pay Norvik"}], "max_tokens": 64}


def ask(served: Served, url: str, tenant: str, **more: Any) -> None:
    headers = {"Authorization": f"Bearer {served.keys[tenant]}"}
    answer = httpx.post(url + "/v1/chat/completions", json=QUESTION | more, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text


def used(served: Served, tenant: str) -> list[dict[str, Any]]:
    done = tenon("usage", tenant, "--json", "-w", str(served.workspace.root))
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_usage_is_what_was_answered_once(own: Served, tmp_path: Path) -> None:
    with another_router(own, tmp_path, end=signal.SIGKILL) as url:  # before its first report
        for _ in range(2):
            ask(own, url, "bank_a")
        ask(own, url, "retail_b", stream=True)
    assert used(own, "bank_a") == []
    for _ in range(2):  # the second time, what there is has been reported
        with another_router(own, tmp_path) as url:
            ask(own, url, "bank_a")
    for tenant, requests in (("bank_a", 4), ("retail_b", 1), ("saas_c", 0)):
        lines = used(own, tenant)
        assert sum(line["requests"] for line in lines) == requests
        assert {line["version"] for line in lines} == ({own.versions[tenant]} if requests else set())
        assert all(line["prompt_tokens"] > 0 and line["completion_tokens"] > 0 for line in lines)
    table = tenon("usage", "bank_a", "-w", str(own.workspace.root)).out
    assert str(own.versions["bank_a"])[7:15] in table
