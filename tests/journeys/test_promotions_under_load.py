"""Twenty promotions and roll backs of a real registry under load: nothing fails, every answer is of one whole
version, conversations keep theirs, and nobody gets what was rolled back from."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from registry.digests import Digest
from registry.models import Role
from registry.names import engine_name
from router.testing import FakeAnswer
from server.testing import fake_chat, fake_model
from server.testing.fake_engine import FakeEngine, FakeOptions, Faults
from tests.support.registries import GATE, NAME, World, attested, open_world, route
from tests.unit.router.driving import House, Response, until

MOVES = 20
CLIENTS = 12
URL = "http://127.0.0.1:8001"


@dataclass
class Answered:
    conversation: str | None
    version: str
    epoch: str | None


@dataclass
class Stage:
    world: World
    house: House
    fake: FakeEngine
    secret: str
    weights: dict[Digest, Digest] = field(default_factory=dict)
    answered: list[Answered] = field(default_factory=list)
    half: int = 0
    """Streams that saw the alias move between their first and their last piece."""

    def load(self, version: Digest) -> None:
        folder = self.world.folder / "served" / version.hex
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text('{"r": 4}')
        (folder / "adapter_model.safetensors").write_bytes(version.encode())
        self.fake.load(engine_name(version), folder)
        self.weights[version] = fake_model.weights_of(folder)
        self.world.catalog.attest(attested(self.world.finding(version)), actor="engine-0")

    async def publish(self) -> None:
        snapshot = self.world.catalog.snapshot()
        self.house.feed.publish(snapshot)
        await until(
            lambda: (
                self.house.app.feed.latest is not None and self.house.app.feed.latest.size == snapshot.size
            )
        )

    def serve(self, body: dict[str, Any]) -> FakeAnswer:
        name = str(body["model"])
        weights = self.fake.answering(name, [1], body.get("cache_salt")) if name in self.fake.paths else None
        chat = fake_chat.compose(body, model=name, weights=weights, prompt_tokens=3)
        if not body.get("stream"):
            return Slow(200, [orjson.dumps(fake_chat.whole(chat, drop_finish=False))])
        frames = fake_chat.frames(chat, drop_finish=False, end_in_error=False)
        return Slow(200, [b"data: " + frame + b"\n\n" for frame in frames])


class Slow(FakeAnswer):
    """Lets others work between two pieces, so that moves happen within answers."""

    async def read(self) -> bytes:
        for _ in range(5):
            await asyncio.sleep(0)
        return await super().read()


@contextmanager
def _stage(folder: Path) -> Iterator[Stage]:
    world = open_world(folder)
    house = House(folder / "router")
    fake = FakeEngine(FakeOptions(), Faults())
    world.catalog.announce(world.engine(), actor="engine-0")
    world.catalog.publish_routing("bank_a", routes=[route(world.policy())], actor="test")
    _, secret = world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    stage = Stage(world, house, fake, secret)
    house.engines.scripts[URL] = stage.serve
    yield stage
    world.database.close()


async def _client(stage: Stage, number: int, stop: asyncio.Event) -> None:
    turns = 0
    while not stop.is_set():
        conversation = f"c{number}-{turns // 6}" if number % 3 else None
        headers = {"x-conversation-id": conversation} if conversation else {}
        body: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "pay"}]}
        body["stream"] = bool(turns % 2)
        before = stage.world.catalog.alias(NAME).epoch
        response = await stage.house.call(stage.secret, body, headers=headers).done()
        stage.half += before != stage.world.catalog.alias(NAME).epoch
        _judge(stage, response, conversation)
        turns += 1


def _judge(stage: Stage, response: Response, conversation: str | None) -> None:
    assert response.status == 200, response.body
    streamed = response.headers["content-type"].startswith("text/event-stream")
    text = response.text() if streamed else response.json()["choices"][0]["message"]["content"]
    version = Digest(response.headers["x-tenon-version"])
    assert fake_model.signed_by(text) == {fake_model.signature(stage.weights[version])}
    stage.answered.append(Answered(conversation, version, response.headers.get("x-tenon-epoch")))


async def _move(stage: Stage) -> None:
    catalog = stage.world.catalog
    versions = [stage.world.evaluated(seed=seed) for seed in range(1, MOVES + 2)]
    for number in range(MOVES):
        if number % 3 == 2:
            gone = catalog.alias(NAME).version
            back = catalog.rollback(NAME, actor="ann")
            await stage.publish()
            at = len(stage.answered)
            await until(lambda at=at: len(stage.answered) >= at + 2 * CLIENTS)  # type: ignore[misc]
            recent = stage.answered[at + CLIENTS :]  # those of before the roll back are through
            assert {each.version for each in recent} == {back.version}
            assert gone != back.version
            continue
        version = versions[number]
        catalog.prepare(NAME, version, gate=GATE, seconds=60, actor="ann")
        stage.load(version)
        await stage.publish()
        catalog.promote(NAME, version, gate=GATE, require_ready=True, actor="ann")
        await stage.publish()
        at = len(stage.answered)
        await until(lambda at=at: len(stage.answered) >= at + 2 * CLIENTS)  # type: ignore[misc]


async def test_nobody_notices_twenty_moves(tmp_path: Path) -> None:
    with _stage(tmp_path) as stage:
        first = stage.world.promoted(seed=0)
        stage.load(first)
        await stage.house.app.start()
        await stage.publish()
        stop = asyncio.Event()
        clients = [asyncio.create_task(_client(stage, number, stop)) for number in range(CLIENTS)]
        moving = asyncio.create_task(_move(stage))
        await asyncio.wait([moving, *clients], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.gather(moving, *clients)
        await stage.house.app.stop()
        _conversations_kept_theirs(stage)
        outcomes = [record for record in stage.house.records() if record.event == "outcome"]
        assert len(outcomes) == len(stage.answered)
        assert {record.status for record in outcomes} == {200}
        _records_say_what_was(stage, outcomes)
        assert stage.half > 0
        assert stage.world.catalog.alias(NAME).epoch == MOVES + 1


def _conversations_kept_theirs(stage: Stage) -> None:
    """Between two answers of a conversation the version changes only if its own is neither stable nor the
    former one any more: then it was moved on twice, or rolled back."""
    history = {move.epoch: move for move in stage.world.catalog.history(NAME)}
    last: dict[str, Answered] = {}
    for each in stage.answered:
        if each.conversation is None:
            assert each.epoch is None
            continue
        assert each.epoch is not None
        before = last.get(each.conversation)
        if before is not None and before.version != each.version:
            was, now = int(before.epoch or 0), int(each.epoch)
            after = [history[epoch].cause for epoch in range(was + 1, len(history) + 1)]
            assert "rollback" in after[: now - was] or after[:2] == ["promotion", "promotion"], (before, each)
        last[each.conversation] = each
    assert len(last) > CLIENTS


def _records_say_what_was(stage: Stage, outcomes: list[Any]) -> None:
    shown = {move.epoch: move.version for move in stage.world.catalog.history(NAME)}
    assert all(record.version == shown[record.epoch] for record in outcomes)
