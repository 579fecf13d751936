"""Limits and the queue over real HTTP, before an engine that answers when the test says so."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from registry.models import Quota, Tenant
from registry.names import engine_name
from router import serving
from router.admission import Patience
from router.limits import Timeouts
from router.testing import chunk, completion
from router.upstream import EnginePool
from tests.unit.router.driving import QUESTION, House, until
from tests.unit.router.raw_engine import HEAD, Reply, engine, whole

MOST = 50
"""``max_tokens`` of the streams."""
ASKING = orjson.dumps({**QUESTION, "stream": True, "max_tokens": MOST})


@dataclass
class Wire:
    house: House
    url: str

    def client(self, secret: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        limits = httpx.Limits(max_connections=100)
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, limits=limits)


@asynccontextmanager
async def wire(folder: Path, reply: Reply, **settings: Any) -> AsyncIterator[Wire]:
    async with engine(reply) as behind:
        house = House(folder, engines=EnginePool(Timeouts()), **settings)
        house.scene.engine(url=behind.url)
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            server = serving.server(house.app, house.app.drain, seconds=5, log_config=None)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            await until(lambda: server.started)
            try:
                yield Wire(house, f"http://127.0.0.1:{listener.getsockname()[1]}")
            finally:
                server.should_exit = True
                await running


async def test_streams_cannot_overshoot_a_quota(tmp_path: Path) -> None:
    """Of ten at once, as many pass as the quota has reservations for, though none has used anything yet; each
    then uses all that it may, and the minute still holds no token more than the quota."""
    going_on, asked = asyncio.Event(), 0

    async def greedy(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        usage = {"prompt_tokens": len(ASKING), "completion_tokens": body["max_tokens"], "total_tokens": 0}
        last = {**orjson.loads(chunk(body, "")[6:]), "choices": [], "usage": usage}
        events = [
            *(chunk(body, "word ") for _ in range(body["max_tokens"])),
            chunk(body, "", finish="stop"),
            b"data: " + orjson.dumps(last) + b"\n\n",
            b"data: [DONE]\n\n",
        ]  # fmt: skip
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for event in events:
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await going_on.wait()
        writer.write(b"0\r\n\r\n")

    async with wire(tmp_path, greedy) as router:
        scene = router.house.scene
        secret = scene.serve("bank_a")
        each = len(ASKING) + 64 + MOST  # the estimate of the prompt is its bytes, and 64
        quota = 3 * each + each // 2
        scene.tenants["bank_a"] = Tenant(id="bank_a", display_name="A", quota=Quota(tokens_per_minute=quota))
        await router.house.publish()
        async with router.client(secret) as client:
            tasks = [
                asyncio.create_task(client.post("/v1/chat/completions", content=ASKING)) for _ in range(10)
            ]
            await until(lambda: sum(task.done() for task in tasks) == 7)
            await until(lambda: asked == 3)
            refused = [task.result() for task in tasks if task.done()]
            assert {answer.json()["error"]["code"] for answer in refused} == {"rate_limit_exceeded"}
            assert {answer.status_code for answer in refused} == {429}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
            going_on.set()
            passed = [answer for answer in await asyncio.gather(*tasks) if answer.status_code == 200]
            assert len(passed) == 3
            assert all(answer.text.endswith("data: [DONE]\n\n") for answer in passed)
            used = [
                (record.prompt_tokens or 0) + (record.completion_tokens or 0)
                for record in router.house.records()
                if record.status == 200
            ]
            assert used == [len(ASKING) + MOST] * 3
            assert sum(used) <= quota
            # What was reserved and not used is there again, and no more than that.
            left = quota - sum(used)
            again = [await client.post("/v1/chat/completions", content=ASKING) for _ in range(3)]
            assert [answer.status_code for answer in again] == [200] * (left // each) + [429] * (
                3 - left // each
            )
        assert asked == 3 + left // each


async def test_a_tenant_with_a_backlog_delays_another_by_its_turns_only(tmp_path: Path) -> None:
    order: list[str] = []
    turn = asyncio.Semaphore(0)

    async def one_by_one(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        order.append(body["model"])
        await turn.acquire()
        writer.write(whole(orjson.dumps(completion(body, "fine"))))

    patience = Patience(running=1, waiting=100, aging=20, longest=30)
    async with wire(tmp_path, one_by_one, patience=patience) as router:
        scene, queue = router.house.scene, router.house.app.queue
        secrets = {tenant: scene.serve(tenant) for tenant in ("bank_a", "retail_b")}
        names = {version.tenant: engine_name(version.version) for version in scene.versions}
        await router.house.publish()
        async with router.client(secrets["bank_a"]) as loud, router.client(secrets["retail_b"]) as quiet:
            body = orjson.dumps(QUESTION)
            tasks = [asyncio.create_task(loud.post("/v1/chat/completions", content=body)) for _ in range(20)]
            await until(lambda: queue.waiting == 19 and len(order) == 1)
            tasks += [asyncio.create_task(quiet.post("/v1/chat/completions", content=body)) for _ in range(5)]
            await until(lambda: queue.waiting == 24)
            for done in range(1, 26):
                await until(lambda done=done: len(order) == done)  # type: ignore[misc]
                assert len(order) - done == 0, "more than one in the engine"
                turn.release()
            answers = await asyncio.gather(*tasks)
        assert {answer.status_code for answer in answers} == {200}
        places = [at for at, name in enumerate(order) if name == names["retail_b"]]
        assert places[0] <= 2  # after the one in the engine and one turn, whatever waits
        assert {later - place for place, later in itertools.pairwise(places)} == {2}
        assert order.count(names["bank_a"]) == 20
        assert queue.waiting == 0
