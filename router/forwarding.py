"""forward: one pooled HTTP session to the engines, and only ever to the paths of ``router.surfaces``.

Nothing of the client's request travels on but the body that ``router.surfaces`` wrote: vLLM reads
headers that replace the model (X-Amzn-SageMaker-Adapter-Identifier) and serves paths without a key.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp

from router.errors import (
    EndpointUnsupported,
    EngineAnswered,
    EngineFailed,
    EngineInterrupted,
    EngineRejectedRequest,
    EngineTimeout,
    EngineUnavailable,
    NothingSent,
)
from router.limits import Timeouts
from router.ports import EngineAnswer

_HEADERS = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "tenon-router",
}
# Below uvicorn's (so vLLM's) 5 s: reusing a connection that the engine is just closing would fail a request
# that cannot be sent again.
_KEEP_ALIVE = 3.0
_END_SECONDS = 0.02


class AiohttpEngines:
    """``Engines`` over the network."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect),
            trust_env=False,
        )

    async def ask(self, url: str, body: bytes) -> EngineAnswer:
        if self._session is None:
            raise EngineUnavailable
        try:
            async with asyncio.timeout(self._timeouts.connect + self._timeouts.first_byte):
                response = await self._session.post(url, data=body, headers=_HEADERS, allow_redirects=False)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise NothingSent from None
        except TimeoutError:
            raise EngineTimeout from None
        except (aiohttp.ClientError, OSError):
            raise EngineUnavailable from None
        return _AiohttpAnswer(response, self._timeouts)

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class _AiohttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse, timeouts: Timeouts) -> None:
        self._response = response
        self._timeouts = timeouts

    @property
    def status(self) -> int:
        return self._response.status

    async def chunks(self) -> AsyncIterator[bytes]:
        # The status line of a stream comes before its first token, so the first chunk gets the long patience.
        patience = self._timeouts.first_byte
        while True:
            try:
                async with asyncio.timeout(patience):
                    piece = await self._response.content.readany()
            except TimeoutError:
                raise EngineTimeout from None
            except (aiohttp.ClientError, OSError):
                raise EngineInterrupted from None
            if not piece:
                return
            yield piece
            patience = self._timeouts.between_chunks

    async def close(self) -> None:
        """An answer that was read to its end goes back to the pool; cutting any other stops the engine."""
        if not self._response.content.is_eof():
            # After [DONE] only the end of the HTTP body is missing, and it is on its way.
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(_END_SECONDS):
                    await self._response.content.readany()
        self._response.close()


def address(url: str, path: str) -> str:
    return url.rstrip("/") + path


def check_status(status: int, *, optional: bool = False) -> None:
    """Raises EngineRejectedRequest (the request's fault), EndpointUnsupported (of an ``optional`` path) or
    EngineFailed; never with the engine's words."""
    if optional and status in (404, 405, 501):
        raise EndpointUnsupported
    if status in (400, 413):
        raise EngineRejectedRequest
    if status != 200:
        raise EngineAnswered


async def read_all(answer: EngineAnswer, limit: int) -> bytes:
    """The whole body. Raises EngineFailed beyond ``limit`` bytes."""
    pieces: list[bytes] = []
    size = 0
    async for piece in answer.chunks():
        size += len(piece)
        if size > limit:
            raise EngineFailed
        pieces.append(piece)
    return b"".join(pieces)
