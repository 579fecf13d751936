"""A whole router on real sockets before the fake engine, for clients that people really use."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.models import Policy
from registry.names import engine_name
from router import serving
from router.limits import Timeouts
from router.upstream import EnginePool
from server.testing.fake_engine import FakeOptions, Faults
from server.testing.fake_model import signature
from server.testing.fake_vllm import FakeServer
from tests.unit.router.driving import House, until
from tests.unit.server.engines.serving import adapter, serve

SCHEMA = {
    "type": "object",
    "properties": {"zeta": {"type": "string"}, "amount": {"type": "integer"}},
    "required": ["zeta", "amount"],
    "additionalProperties": False,
}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@dataclass
class Desk:
    """bank_a's models: ``assistant`` (any tool), ``strict`` (a schema), ``formal`` (a system prompt)."""

    url: str
    secret: str
    foreign: str
    """A key of another tenant, whose only model is ``cashier``."""
    signed: str
    """How bank_a's adapter signs its answers."""
    engine_name: str
    house: House
    fake: FakeServer

    def asked(self) -> dict[str, Any]:
        """What the engine was asked last."""
        return self.fake.seen[-1][1]

    def record(self, answer: str) -> Any:
        """The outcome of the request whose answer has this id."""
        plain = answer.rpartition("-")[2].rpartition("_")[2]
        (found,) = [r for r in self.house.records() if r.id == f"rec-{plain}" and r.event == "outcome"]
        return found


@asynccontextmanager
async def standing(
    folder: Path, options: FakeOptions | None = None, faults: Faults | None = None
) -> AsyncIterator[Desk]:
    async with serve(options, faults) as (fake, engine_url):
        house = House(folder / "records", engines=EnginePool(Timeouts()))
        scene = house.scene
        scene.engine(url=engine_url)
        version = scene.version("bank_a")
        loaded, weights = adapter(folder / "adapter", seed=1)
        name = engine_name(version)
        fake.engine.load(name, loaded)
        scene.attest(version)
        policies = {
            "assistant": Policy(tenant="bank_a", name="free", tools=("*",)),
            "strict": scene.policies[scene.policy("bank_a", SCHEMA)],
            "formal": scene.policies[scene.policy("bank_a", system_prompt="be exact")],
            "toolless": Policy(tenant="bank_a", name="toolless", tools=("clock",)),
        }
        for model, policy in policies.items():
            scene.policies[policy.identity()] = policy
            scene.route("bank_a", policy.identity(), model=model)
        secret = scene.key("bank_a")
        foreign = scene.serve("retail_b", model="cashier")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = serving.server(house.app, house.app.drain, seconds=5, log_config=None)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            await until(lambda: server.started)
            await house.publish()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            try:
                yield Desk(url, secret, foreign, signature(weights), name, house, fake)
            finally:
                server.should_exit = True
                await running


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with standing(tmp_path) as found:
        yield found
