"""Asking the other routers for a receipt, over the API that they show to clients."""

import asyncio
import re
import socket
from collections.abc import Sequence
from typing import Final

import aiohttp
from yarl import URL

from router.elsewhere import ASKED_BY_PEER
from router.errors import ReceiptUnavailable

PATIENCE: Final = 2.0
"""Seconds for all routers together: a record is found in memory and read from one file."""
ASKING: Final = 16
"""Receipts that are looked for elsewhere at a time: anybody with a key can ask for records that nobody has,
and each such question becomes one to every router."""
_MOST_BYTES: Final = 256 * 1024
"""A record is about a kilobyte."""
_RECORD: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


class RouterPeers:
    """``router.ports.Peers`` over HTTP.

    ``urls``: base URLs. A name that has several addresses (a headless Service has one for each pod) stands
    for a router at each, and one that has none for a router that cannot be asked. This router may be among
    them: it has looked already and says so once more.
    """

    def __init__(self, urls: Sequence[str], *, patience: float = PATIENCE) -> None:
        self._urls = [URL(url.rstrip("/")) for url in urls]
        self._patience = patience
        self._asking = asyncio.Semaphore(ASKING)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def receipt(self, record: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        if not _RECORD.fullmatch(record):  # it becomes part of a path
            return None
        if self._asking.locked():
            raise ReceiptUnavailable
        shown = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        async with self._asking:
            if self._session is None:
                self._session = aiohttp.ClientSession(auto_decompress=False)
            asked = [
                asyncio.create_task(self._ask(url, record, {**shown, ASKED_BY_PEER: "1"}))
                for url in self._urls
            ]
            try:
                return await self._first(asked)
            finally:
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

    async def _first(self, asked: Sequence["asyncio.Task[bytes | None]"]) -> bytes | None:
        sure = True
        try:
            async with asyncio.timeout(self._patience):
                for each in asyncio.as_completed(asked):
                    try:
                        if (found := await each) is not None:
                            return found
                    except (OSError, aiohttp.ClientError, ReceiptUnavailable):
                        sure = False
        except TimeoutError:
            sure = False
        if not sure:
            raise ReceiptUnavailable
        return None

    async def _ask(self, url: URL, record: str, headers: dict[str, str]) -> bytes | None:
        """Every router behind one URL."""
        assert url.host is not None
        found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        addresses = sorted({str(where[0]) for *_, where in found})
        if not addresses:
            raise ReceiptUnavailable
        asked = [asyncio.create_task(self._ask_one(url, each, record, headers)) for each in addresses]
        try:
            return await self._first(asked)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _ask_one(self, url: URL, address: str, record: str, headers: dict[str, str]) -> bytes | None:
        assert self._session is not None
        assert url.host is not None
        async with self._session.get(
            (url / "v1" / "receipts" / record).with_host(address),
            headers={**headers, "Host": url.authority},
            server_hostname=url.host if url.scheme == "https" else None,
            allow_redirects=False,
        ) as answer:
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise ReceiptUnavailable
            body = await answer.content.read(_MOST_BYTES + 1)
            while len(body) <= _MOST_BYTES and (piece := await answer.content.read(_MOST_BYTES)):
                body += piece
            if len(body) > _MOST_BYTES:
                raise ReceiptUnavailable
            return body
