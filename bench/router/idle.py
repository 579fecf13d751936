"""Many streams at once on which nothing happens, as while an engine thinks."""

import asyncio
from urllib.parse import urlsplit

from bench.router.load import Request, RequestsFailed
from bench.router.openloop import raw


async def streams(url: str, request: Request, count: int) -> list[asyncio.StreamWriter]:
    """Each has had its first piece when this returns. Raises RequestsFailed."""
    parts, data = urlsplit(url), raw(url, request)

    async def one() -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=4096)
        writer.write(data)
        if not (await reader.readline()).startswith(b"HTTP/1.1 200"):
            raise RequestsFailed("an idle stream was refused")
        await reader.readuntil(b'"role":"assistant"')
        return writer

    found: list[asyncio.StreamWriter] = []
    for at in range(0, count, 50):
        found += await asyncio.gather(*(one() for _ in range(min(50, count - at))))
    return found
