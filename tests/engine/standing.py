"""A router on real sockets before the shared vLLM, with versions that vLLM can also be asked for directly."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from registry.digests import Digest
from registry.models import Policy
from registry.names import engine_name
from router import serving
from router.limits import Timeouts
from router.upstream import EnginePool
from tests.engine.conftest import RealEngine
from tests.unit.router.driving import House, Response, until

HI = [{"role": "user", "content": "What is new?"}]
"""Nothing that the demo base was taught, so it is not sure of its words."""
FREE = Policy(tenant="bank_a", name="free", tools=("*",))


@dataclass(frozen=True, slots=True)
class Standing:
    engine: RealEngine
    house: House
    url: str
    secret: str
    versions: tuple[Digest, ...]
    """As the adapters were given; the alias of ``assistant`` points to the first."""

    async def ask(
        self, path: str = "/v1/chat/completions", *, headers: Mapping[str, str] | None = None, **body: Any
    ) -> Response:
        sent = {"model": "assistant", **body}
        return await self.house.call(self.secret, sent, headers=headers, path=path).done()

    async def directly(self, version: Digest, **body: Any) -> str:
        """What vLLM itself says in a chat, asked for this version's adapter."""
        sent = {"model": engine_name(version), "temperature": 0, "cache_salt": "directly", **body}
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(f"{self.engine.spec.url}/v1/chat/completions", json=sent)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    async def metric(self, name: str, **labels: str) -> float:
        """Of vLLM."""
        async with httpx.AsyncClient(timeout=10) as client:
            text = (await client.get(f"{self.engine.spec.url}/metrics")).text
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, name
        return sum(found)

    async def heard(self) -> None:
        """Wait until vLLM's server has read what it was sent before this: it answers in between."""
        for _ in range(2):
            await self.metric("vllm:num_requests_running")

    async def idle(self) -> None:
        """Wait until vLLM works on nothing; fails after a minute."""
        async with asyncio.timeout(60):
            while await self.metric("vllm:num_requests_running"):  # noqa: ASYNC110 (vLLM has no event)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def standing(
    folder: Path,
    engine: RealEngine,
    adapters: Sequence[Path],
    policies: Mapping[str, Policy] | None = None,
) -> AsyncIterator[Standing]:
    """``policies``: by public model name; all are bank_a's and its one adapter's."""
    house = House(folder, engines=EnginePool(Timeouts()))
    scene = house.scene
    scene.engine(url=engine.spec.url)
    # The adapter's name is in the digest: no other file loads versions of this one.
    versions = tuple(scene.version("bank_a", "standing") for _ in adapters)
    scene.aliases = scene.aliases[:1]
    for model, policy in (policies or {"assistant": FREE}).items():
        scene.policies[policy.identity()] = policy
        scene.route("bank_a", policy.identity(), model=model, adapter="standing")
    secret = scene.key("bank_a")
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(engine.client())
        for version, adapter in zip(versions, adapters, strict=True):
            await client.load(engine_name(version), adapter)
            stack.push_async_callback(client.unload, engine_name(version))
            scene.attest(version)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server = serving.server(house.app, house.app.drain, seconds=5, log_config=None)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await until(lambda: server.started)
            await house.publish()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Standing(engine, house, url, secret, versions)
        finally:
            server.should_exit = True
            await running
