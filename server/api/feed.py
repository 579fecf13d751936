"""What routers and engines follow: the newest state, as soon as the log grows."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from server.api.access import requires
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router

JSON = "application/json"
_POLL = 0.1
"""Seconds between looks at the log while a reader waits: others write it too, and SQLite cannot notify."""


def routes(control: Control) -> APIRouter:
    feed = router()

    @feed.get("/feed", dependencies=[requires(control, {Who.SERVICE})])
    async def read(
        request: Request,
        after: Annotated[int, Query(ge=-1)] = -1,
        wait: Annotated[float, Query(ge=0, le=30)] = 0,
    ) -> Response:
        """The newest snapshot if the log is longer than ``after``; else 204 after ``wait`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while (snapshot := await run_in_threadpool(control.catalog.feed, after)) is None:
            if loop.time() >= deadline or await request.is_disconnected():
                return Response(status_code=204)
            await asyncio.sleep(_POLL)
        return Response(snapshot.canonical(), media_type=JSON)

    return feed
