"""What tenants used, from their requests to ``tenon usage``, over a router that is killed."""

import json
import os
import signal
from typing import Any

import httpx

from server.assembly import stack
from tests.journeys.commands import tenon
from tests.journeys.conftest import Served, start

QUESTION = {"model": "assistant", "messages": [{"role": "user", "content": "pay Norvik"}], "max_tokens": 64}


def ask(served: Served, tenant: str, **more: Any) -> None:
    headers = {"Authorization": f"Bearer {served.keys[tenant]}"}
    answer = httpx.post(
        served.url + "/v1/chat/completions", json=QUESTION | more, headers=headers, timeout=30
    )
    assert answer.status_code == 200, answer.text


def used(served: Served, tenant: str) -> list[dict[str, Any]]:
    done = tenon("usage", tenant, "--json", "-w", str(served.workspace.root))
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_usage_is_what_was_answered_once(own: Served) -> None:
    for _ in range(2):
        ask(own, "bank_a")
    ask(own, "retail_b", stream=True)
    assert own.running is not None
    (router,) = [process for process in own.running.processes if process.role == "router"]
    os.kill(router.pid, signal.SIGKILL)  # seconds before its first report
    stack.stop(own.workspace)
    assert used(own, "bank_a") == []
    start(own)
    ask(own, "bank_a")
    stack.stop(own.workspace)
    for tenant, requests in (("bank_a", 3), ("retail_b", 1), ("saas_c", 0)):
        lines = used(own, tenant)
        assert sum(line["requests"] for line in lines) == requests
        assert {line["version"] for line in lines} == ({own.versions[tenant]} if requests else set())
        assert all(line["prompt_tokens"] > 0 and line["completion_tokens"] > 0 for line in lines)
    table = tenon("usage", "bank_a", "-w", str(own.workspace.root)).out
    assert str(own.versions["bank_a"])[7:15] in table
