"""The engines that Kubernetes has endpoints for: listed once, then watched.

What a client of the API server has to get right: https://kubernetes.io/docs/reference/using-api/api-concepts/
(resource versions, bookmarks, 410 Gone).
"""

import asyncio
import logging
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from registry.errors import InvalidDocument
from server.engines.discovery import slices
from server.engines.discovery.sighting import Sighting

WATCH: Final = 120
"""Seconds until the server ends a watch in order and we begin another. A connection that died without a word
(a node that vanished, a firewall that forgot) is noticed `_SILENT` seconds after that at the latest."""
_SILENT: Final = 15
_PATIENCE: Final = 10.0
"""Seconds for a connection, and for a page of the list."""
_BACKOFF: Final = (1.0, 30.0)
"""First and longest; drawn between nothing and that, so that not all clients come back at once."""
_SHORT: Final = 1.0
"""A watch that ended in less counts as a failure: servers behind a broken proxy end all of them at once."""
_PAGE: Final = 500
_MAX_PAGE: Final = 64 * 1024 * 1024
_MAX_LINE: Final = 4 * 1024 * 1024
"""A slice holds at most 1,000 endpoints, of some 300 bytes."""
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/=-]+")
"""RFC 6750's b64token."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ApiServer:
    url: str
    namespace: str
    services: tuple[str, ...]
    """Whose slices list engines."""
    account: Path
    """Folder of the service account: ``token`` (read anew for every request, because Kubernetes rotates it)
    and ``ca.crt``, the only certificates that are trusted."""
    port: str = "vllm"
    """Name of the port that routers call."""

    @property
    def path(self) -> str:
        return self.url.rstrip("/") + slices.PATH.format(namespace=self.namespace)

    @property
    def asked(self) -> dict[str, str]:
        return {"labelSelector": f"{slices.SERVICE} in ({','.join(self.services)})"}


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Kubernetes:
    """:meth:`follow` in a loop of its own; :meth:`look` from any thread."""

    def __init__(
        self,
        server: ApiServer,
        *,
        ticks: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._server = server
        self._ticks = ticks
        self._pause = pause
        self._chance = chance
        self._slices: dict[str, slices.Slice] = {}
        self._version: str | None = None
        """Where a watch would go on; None: a list has to come first."""
        self._seen = Sighting()

    def look(self) -> Sighting:
        """While the server is away: what it said last, with the time of that."""
        return self._seen

    async def follow(self) -> None:
        """For ever."""
        failures = 0
        while True:
            began = self._ticks()
            try:
                async with self._session() as session:
                    if self._version is None:
                        await self._list(session)
                    await self._watch(session, str(self._version))
                if self._ticks() - began >= _SHORT:
                    failures = 0
                    continue
                why = "it ends every watch at once"
            except _Refused as refused:
                if refused.status == 410:  # history was compacted: only a list says what there is now
                    self._version = None
                why = str(refused)
            except InvalidDocument as error:
                self._version = None
                why = error.message
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why = type(error).__name__
            if self._ticks() - began >= _BACKOFF[1]:
                failures = 0
            failures += 1
            _log.log(
                logging.WARNING if failures == 3 else logging.DEBUG,
                "the Kubernetes API server does not tell of engines: %s", why,
            )  # fmt: skip
            first, longest = _BACKOFF
            await self._pause(self._chance() * min(first * 2.0 ** min(failures - 1, 10), longest))

    async def once(self) -> Sighting:
        """One list and no watch. Raises OSError, TimeoutError, aiohttp.ClientError, InvalidDocument."""
        try:
            async with self._session() as session:
                await self._list(session)
        except _Refused as refused:
            raise InvalidDocument(f"the Kubernetes API server answered {refused.status}") from None
        return self._seen

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        if self._server.url.startswith("https://"):
            # Read each time: a cluster's certificates change, too.
            trust: ssl.SSLContext | bool = await asyncio.to_thread(
                ssl.create_default_context, cafile=str(self._server.account / "ca.crt")
            )
        else:
            trust = True
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
            yield session

    async def _list(self, session: aiohttp.ClientSession) -> None:
        found: dict[str, slices.Slice] = {}
        query = self._server.asked | {"limit": str(_PAGE)}
        while True:
            async with (
                asyncio.timeout(_PATIENCE),
                session.get(
                    self._server.path, params=query, headers=self._headers(), allow_redirects=False
                ) as answer,
            ):
                if answer.status != 200:
                    raise _Refused(answer.status)
                data = bytearray()
                async for piece in answer.content.iter_any():
                    data += piece
                    if len(data) > _MAX_PAGE:
                        raise InvalidDocument("a page of the list is too large")
            page = slices.page(bytes(data))
            found |= {each.name: each for each in page.items or () if self._ours(each)}
            if not page.metadata.next:
                break
            query["continue"] = page.metadata.next
        self._slices, self._version = found, page.metadata.resource_version
        self._tell()

    async def _watch(self, session: aiohttp.ClientSession, version: str) -> None:
        """Until the server ends it. What was cut in the middle of a line is asked for again."""
        query = self._server.asked | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH),
        }
        limit = aiohttp.ClientTimeout(total=None, sock_connect=_PATIENCE, sock_read=WATCH + _SILENT)
        async with session.get(
            self._server.path, params=query, headers=self._headers(), timeout=limit, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                raise _Refused(answer.status)
            self._seen = Sighting(self._seen.engines, self._ticks())
            rest = bytearray()
            async for piece in answer.content.iter_any():
                *lines, last = (rest + piece).split(b"\n")
                for line in lines:
                    self._take(bytes(line))
                if len(last) > _MAX_LINE:
                    raise InvalidDocument("a line of the watch is too long")
                rest = last

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        event = slices.happened(line)
        if event.error is not None:
            self._version = None
            raise _Refused(event.error)
        if event.gone is not None:
            self._slices.pop(event.gone, None)
        elif event.now is not None and self._ours(event.now):
            self._slices[event.now.name] = event.now
        elif event.now is not None:  # its label changed
            self._slices.pop(event.now.name, None)
        self._version = event.version or self._version
        self._tell()

    def _tell(self) -> None:
        server = self._server
        found = slices.engines(self._slices.values(), namespace=server.namespace, port=server.port)
        self._seen = Sighting(found, self._ticks())

    def _ours(self, each: slices.Slice) -> bool:
        return each.of(self._server.namespace, self._server.services)

    def _headers(self) -> dict[str, str]:
        token = (self._server.account / "token").read_bytes().strip()
        if not _TOKEN.fullmatch(token):  # half-written, say
            raise InvalidDocument("the service account's token is none")
        return {"Authorization": f"Bearer {token.decode()}", "Accept": "application/json"}
