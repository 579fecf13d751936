"""What the pipeline relies on, of every ``Engines``: the pool over TCP and unix sockets, and the fake."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.errors import EngineInterrupted, NothingSent
from router.limits import Timeouts
from router.ports import EngineAnswer, Engines
from router.testing import FakeAnswer, FakeEngines
from router.upstream import EnginePool
from tests.unit.router import raw_engine
from tests.unit.router.driving import until
from tests.unit.router.raw_engine import pieces


class World:
    """One engine: it answers with ``parts``, then ends, breaks or says nothing more."""

    engines: Engines
    url: str

    def __init__(self) -> None:
        self.status = 200
        self.parts: list[bytes] = [b"{}"]
        self.then = "end"

    def asked(self) -> list[bytes]:
        raise NotImplementedError

    def cut(self) -> int:
        """Answers whose connection the router gave up before their end."""
        raise NotImplementedError


class FakeWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.url = "http://engine"
        self.engines = self._fake = FakeEngines(self._script)
        self._open: list[FakeAnswer] = []

    def _script(self, _: dict[str, Any]) -> FakeAnswer:
        ends: dict[str, list[bytes | Exception]] = {"end": [], "break": [EngineInterrupted()], "hang": [b"."]}
        answer = FakeAnswer(self.status, [*self.parts, *ends[self.then]])
        if self.then == "hang":
            answer.hold = asyncio.Event()
        self._open.append(answer)
        return answer

    def asked(self) -> list[bytes]:
        return [b"%b" % str(asked.body).encode() for asked in self._fake.asked]

    def cut(self) -> int:
        return sum(answer.closed and answer.hold is not None for answer in self._open)


class RealWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.engines = EnginePool(Timeouts())
        self.server: raw_engine.Engine

    async def reply(self, _: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        answer = pieces(*self.parts, end=self.then == "end")
        writer.write(answer.replace(b"200 OK", b"%d Word" % self.status))
        await writer.drain()
        if self.then == "break":
            writer.close()

    def asked(self) -> list[bytes]:
        return self.server.bodies

    def cut(self) -> int:
        return self.server.closed


@pytest.fixture(params=["tcp", "unix", "fake"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    real = RealWorld()
    async with raw_engine.engine(real.reply, tmp_path / "s" if request.param == "unix" else None) as behind:
        real.server, real.url = behind, behind.url
        await real.engines.start()
        yield real
        await real.engines.stop()


async def everything(answer: EngineAnswer) -> bytes:
    found = b""
    while piece := await answer.read():
        found += piece
    return found


async def test_an_answer_arrives_whole_and_ends_for_good(world: World) -> None:
    world.parts = [b"one ", b"two ", b"three"]
    for _ in range(3):
        answer = await world.engines.ask(f"{world.url}/v1/completions", b"{}")
        assert answer.status == 200
        assert await everything(answer) == b"one two three"
        assert await answer.read() == b""
        await answer.close()
    assert len(world.asked()) == 3


async def test_a_refusal_is_an_answer(world: World) -> None:
    world.status = 400
    answer = await world.engines.ask(world.url, b"{}")
    assert answer.status == 400
    assert await everything(answer) == b"{}"
    await answer.close()


async def test_what_came_before_a_break_is_read_before_it_is_told(world: World) -> None:
    world.parts, world.then = [b"half"], "break"
    answer = await world.engines.ask(world.url, b"{}")
    assert await answer.read() == b"half"
    with pytest.raises(EngineInterrupted):
        await answer.read()
    await answer.close()


async def test_a_closed_answer_stops_the_engine_and_says_nothing_more(world: World) -> None:
    world.parts, world.then = [b"first"], "hang"
    answer = await world.engines.ask(world.url, b"{}")
    assert await answer.read() == b"first"
    await answer.close()
    await until(lambda: world.cut() == 1)
    await answer.close()  # twice is once


async def test_who_waits_can_be_cancelled(world: World) -> None:
    world.parts, world.then = [b"first"], "hang"
    answer = await world.engines.ask(world.url, b"{}")
    await answer.read()
    waiting = asyncio.create_task(answer.read())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await answer.close()
    await until(lambda: world.cut() == 1)


async def test_an_engine_that_is_not_there_was_sent_nothing(world: World, tmp_path: Path) -> None:
    gone = f"http+unix://{str(tmp_path / 'gone').replace('/', '%2F')}/v1/completions"
    if isinstance(world.engines, FakeEngines):
        world.engines.down.add(gone)
    with pytest.raises(NothingSent):
        await world.engines.ask(gone, b"{}")
    assert not world.asked()
