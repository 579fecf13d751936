import json
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from registry.digests import Digest
from registry.fingerprint import Nearest
from registry.judgement import Finding
from server.engines.agent import Agent
from server.engines.agent_app import create_agent_app
from server.engines.metrics import AgentMetrics
from server.engines.state import AgentState, Event, Why
from tests.unit.server.engines.bench import Bench

GOOD, BAD = Digest.of(b"good"), Digest.of(b"bad")
EXACT = Finding(
    own_distance=1e-6,
    nearest=Nearest(what="base", distance=0.5),
    strength="exact",
    passed=True,
    reason="equal",
)


class Standing:
    """An agent that stands still in one state."""

    def __init__(self, state: AgentState) -> None:
        self.state = state
        self.metrics = AgentMetrics()


def serving(**changes: Any) -> AgentState:
    return AgentState(
        **{
            "engine": "engine-0",
            "doing": "serving",
            "boot": "b" * 32,
            "engine_version": "0.32.0",
            "up": True,
            "settled": True,
            "ready": {GOOD: EXACT},
            **changes,
        }
    )


async def ask(state: AgentState, path: str) -> httpx.Response:
    app = create_agent_app(cast("Agent", Standing(state)))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (serving(), 200),
        (serving(ready={}), 200),
        (serving(not_ready={BAD: Why("no fingerprint", blocks=False)}), 200),
        (serving(not_ready={BAD: Why("attestation_failed: too far", blocks=True)}), 503),
        (serving(settled=False), 503),
        (serving(up=False), 503),
        (AgentState(engine="engine-0", doing="starting vLLM"), 503),
    ],
)
async def test_ready_means_that_all_that_fits_is_attested(state: AgentState, status: int) -> None:
    answer = await ask(state, "/readyz")
    assert answer.status_code == status
    assert (answer.json()["status"] == "ready") == (status == 200)
    assert (await ask(state, "/healthz")).status_code == 200
    assert (await ask(state, "/state")).json() == answer.json()


async def test_the_body_says_what_is_not_ready_and_why() -> None:
    state = serving(not_ready={BAD: Why("attestation_failed: too far", blocks=True)})
    body = (await ask(state, "/readyz")).json()
    assert body["not_ready"] == {BAD: "attestation_failed: too far"}
    assert body["ready"] == {GOOD: {"strength": "exact", "distance": 1e-6}}
    assert body["doing"] == "serving"


async def test_metrics_show_the_figures() -> None:
    agent = Standing(serving(not_ready={BAD: Why("x", blocks=True)}, attest_age=12.5))
    for kind in ("starting", "failed", "starting"):
        agent.metrics.count(Event(kind, "x"))
    text = agent.metrics.render(agent.state).decode()
    for line in (
        "tenon_engine_up 1.0",
        "tenon_engine_ready 0.0",
        'tenon_engine_adapters{state="ready"} 1.0',
        'tenon_engine_adapters{state="not_ready"} 1.0',
        f'tenon_engine_attest_distance{{version="{GOOD}"}} 1e-06',
        "tenon_engine_attest_age_seconds 12.5",
        'tenon_engine_events_total{kind="failed"} 1.0',
        "tenon_engine_restarts_total 1.0",
    ):
        assert line in text
    assert GOOD not in agent.metrics.render(AgentState(engine="engine-0", doing="x")).decode()


async def test_a_running_agent_shows_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    version = bench.adapter("bank_a", seed=1)
    transport = httpx.ASGITransport(app=create_agent_app(bench.agent))
    async with bench.running(), httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        await bench.until(lambda state: state.is_ready and version in state.ready)
        answer = await client.get("/readyz")
        assert answer.status_code == 200
        assert list(json.loads(answer.content)["ready"]) == [version]
        assert f'version="{version}"' in (await client.get("/metrics")).text
