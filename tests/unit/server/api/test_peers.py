"""Routers that are asked for a receipt over real sockets."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from router.errors import ReceiptUnavailable
from server.api.peers import RouterPeers

Answer = Callable[[web.Request], Awaitable[web.Response]]
WHO = [(b"authorization", b"Bearer secret")]


async def knows_nothing(_: web.Request) -> web.Response:
    return web.Response(status=404)


async def knows(_: web.Request) -> web.Response:
    return web.Response(body=b'{"receipt":1}')


class Others:
    """Routers on sockets of their own, and the peers that know them."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.urls: list[str] = []
        self.seen: list[web.Request] = []
        self.end = asyncio.Event()
        stack.callback(self.end.set)

    async def never(self, _: web.Request) -> web.Response:
        await self.end.wait()
        return web.Response(status=500)

    async def add(self, answer: Answer, host: str = "127.0.0.1", port: int = 0) -> None:
        async def seen(request: web.Request) -> web.Response:
            self.seen.append(request)
            return await answer(request)

        app = web.Application()
        app.router.add_get("/v1/receipts/{record}", seen)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        self._stack.callback(self.end.set)
        site = web.TCPSite(runner, host, port)
        await site.start()
        self.urls.append(f"http://{host}:{runner.addresses[0][1]}")

    async def asked(self, record: str = "rec-1", *, patience: float = 5) -> bytes | None:
        peers = RouterPeers(self.urls, patience=patience)
        try:
            return await peers.receipt(record, WHO)
        finally:
            await peers.close()


async def test_the_one_that_holds_it_is_found_though_others_hang() -> None:
    async with AsyncExitStack() as stack:
        others = Others(stack)
        for answer in (others.never, knows, knows_nothing):
            await others.add(answer)
        assert await others.asked() == b'{"receipt":1}'
        shown = others.seen[0].headers
        assert shown["Authorization"] == "Bearer secret"
        assert shown["X-Tenon-Peer"] == "1"
        assert shown["Host"].startswith("127.0.0.1:")


async def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a headless Service's: here three of this machine, of which the last one holds the record."""

    async def addresses(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "routers.test"
        return [(0, 0, 0, "", (f"127.0.0.{last}", port)) for last in (1, 2, 3)]

    async with AsyncExitStack() as stack:
        others = Others(stack)
        await others.add(knows_nothing)
        port = int(others.urls[0].rsplit(":", 1)[1])
        await others.add(knows_nothing, "127.0.0.2", port)
        await others.add(knows, "127.0.0.3", port)
        others.urls = [f"http://routers.test:{port}"]
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", addresses)
        assert await others.asked() == b'{"receipt":1}'
        assert others.seen[0].headers["Host"] == f"routers.test:{port}"


async def test_nobody_holds_it() -> None:
    async with AsyncExitStack() as stack:
        others = Others(stack)
        await others.add(knows_nothing)
        await others.add(knows_nothing)
        assert await others.asked() is None


@pytest.mark.parametrize("status", [200, 302, 401, 429, 500, 503])
async def test_who_says_anything_else_may_hold_it(status: int) -> None:
    async def odd(_: web.Request) -> web.Response:
        body = b"x" * (1 << 20) if status == 200 else b""
        return web.Response(status=status, body=body, headers={"Location": "/v1/receipts/rec-2"})

    async with AsyncExitStack() as stack:
        others = Others(stack)
        await others.add(odd)
        await others.add(knows_nothing)
        with pytest.raises(ReceiptUnavailable):
            await others.asked()
        assert len(others.seen) == 2


async def test_who_is_away_or_silent_may_hold_it() -> None:
    async with AsyncExitStack() as stack:
        others = Others(stack)
        await others.add(knows_nothing)
        others.urls.append("http://127.0.0.1:1")
        with pytest.raises(ReceiptUnavailable):
            await others.asked()
        others.urls.pop()
        await others.add(others.never)
        with pytest.raises(ReceiptUnavailable):
            await others.asked(patience=0.2)
        others.urls = ["http://router.invalid:8400"]
        with pytest.raises(ReceiptUnavailable):
            await others.asked()


async def test_a_name_without_an_address_may_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a pod's that is gone: a stateful set's pod keeps its name and its records, but not its address."""
    resolve = asyncio.get_running_loop().getaddrinfo

    async def addresses(host: str, port: int, **more: Any) -> Sequence[tuple[Any, ...]]:
        if host == "router-1.gone":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [] if host == "router-1.empty" else await resolve(host, port, **more)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", addresses)
    for away in ("gone", "empty"):
        async with AsyncExitStack() as stack:
            others = Others(stack)
            await others.add(knows_nothing)
            others.urls.append(f"http://router-1.{away}:8400")
            with pytest.raises(ReceiptUnavailable):
                await others.asked()
            await others.add(knows)
            assert await others.asked() == b'{"receipt":1}'


async def test_a_record_is_a_name_and_no_path() -> None:
    async with AsyncExitStack() as stack:
        others = Others(stack)
        await others.add(knows)
        for odd in ("../../metrics", "rec-1?x=1", "rec 1", "", "r" * 65):
            assert await others.asked(odd) is None
        assert not others.seen


async def test_only_some_are_looked_for_at_a_time() -> None:
    async with AsyncExitStack() as stack:
        others = Others(stack)
        await others.add(others.never)
        peers = RouterPeers(others.urls, patience=0.5)
        found = await asyncio.gather(
            *(peers.receipt(f"rec-{number}", WHO) for number in range(40)), return_exceptions=True
        )
        assert {type(each) for each in found} == {ReceiptUnavailable}
        assert len(others.seen) <= 16
        await peers.close()
