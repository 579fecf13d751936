"""A router that reaches no engine says so before anybody asks it anything."""

import asyncio
import socket

from router.reach import Reach, takes_connections


async def test_one_engine_that_answers_is_enough() -> None:
    open_ones = {"http://a", "http://b"}
    wanted = set(open_ones)

    async def connects(url: str) -> bool:
        return url in open_ones

    reach = Reach(lambda: wanted, connects)
    assert reach.reasons() == []  # nobody looked yet
    await reach.look()
    assert reach.reasons() == []
    open_ones.discard("http://a")
    await reach.look()
    assert (reach.reasons(), reach.unreachable) == ([], 1)
    open_ones.clear()
    await reach.look()
    assert reach.reasons() == ["no engine can be reached"]
    wanted.add("http://new")
    assert reach.reasons() == []  # it was never looked at
    wanted.clear()
    assert reach.reasons() == []  # what the feed says about that is enough
    open_ones.add("http://a")
    wanted.add("http://a")
    await reach.look()
    assert reach.reasons() == []


async def test_it_looks_on_its_own() -> None:
    looked = asyncio.Event()

    async def connects(_: str) -> bool:
        looked.set()
        return False

    reach = Reach(lambda: {"http://a"}, connects)
    await reach.start()
    try:
        async with asyncio.timeout(5):
            await looked.wait()
            while not reach.reasons():  # noqa: ASYNC110 (the look ends right after)
                await asyncio.sleep(0)
    finally:
        await reach.stop()


async def test_what_takes_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert await takes_connections(f"http://127.0.0.1:{port}/ignored")
    assert not await takes_connections(f"http://127.0.0.1:{port}")
    assert not await takes_connections("nonsense")
