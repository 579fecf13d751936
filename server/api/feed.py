"""What routers and engines follow: everything once, then what changed, as soon as the log grows."""

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.feed import Delta, Snapshot
from server.api.access import requires
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router
from server.api.watch import Watch

JSON = "application/json"
_COMPRESSED = 64 << 10
"""Bytes from which gzip is worth its time: a snapshot of 10,000 tenants shrinks to a fifth."""
_SHARED = 1.0
"""Seconds that one answer serves all readers who stand at the same place: a fleet asks at the same moment."""
_COSTLY, _KEPT = 0.5, 60.0
"""A snapshot that took longer to make than the first (seconds) is handed out for the second: whoever gets an
older one asks for the changes since at once."""

Question: TypeAlias = tuple[int, Digest | None]


@dataclass(frozen=True, slots=True)
class Body:
    data: bytes
    compressed: bool
    seconds: float
    """That it took to make."""


def routes(control: Control) -> APIRouter:
    feed = router()
    watch = Watch(control.catalog.log_size)
    bodies = Bodies(partial(_body, control.catalog))

    @feed.get(
        "/feed",
        dependencies=[requires(control, {Who.SERVICE})],
        responses={200: {"model": Snapshot | Delta}, 204: {"description": "Nothing new"}},
    )
    async def read_feed(
        request: Request,
        after: Annotated[int, Query(ge=-1)] = -1,
        root: Annotated[str | None, Query(max_length=71)] = None,
        wait: Annotated[float, Query(ge=0, le=30)] = 0,
        accept_encoding: Annotated[str, Header()] = "",
    ) -> Response:
        """What is new since log size ``after``, a delta or a snapshot; 204 after ``wait`` seconds of nothing.

        ``root``: of the log that the reader knows; a reader of another log is refused.
        """
        question = after, None if root is None else Digest(root)
        body = await bodies.answer(question)
        if body is None and wait > 0 and await _while_there(request, watch.moved(after, wait)):
            body = await bodies.answer(question)
        if body is None:
            return Response(status_code=204)
        if not body.compressed:
            return Response(body.data, media_type=JSON)
        if "gzip" not in accept_encoding:
            return Response(await run_in_threadpool(gzip.decompress, body.data), media_type=JSON)
        return Response(body.data, media_type=JSON, headers={"Content-Encoding": "gzip"})

    return feed


async def _while_there(request: Request, moved: Coroutine[Any, Any, bool]) -> bool:
    """``moved``, or False as soon as the reader has hung up: nobody would hear it, and a control plane that
    stops waits for its requests (15 s for those of engines that were stopped before it)."""
    waiting, gone = asyncio.create_task(moved), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.done() and waiting.result()
    finally:
        for task in (waiting, gone):
            task.cancel()
        await asyncio.gather(waiting, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Bodies:
    """Answers under way or just made, by what was asked: each is made once, however many ask."""

    def __init__(self, make: Callable[[Question], Body | None]) -> None:
        self._make = make
        self._made: dict[Question, asyncio.Task[Body | None]] = {}

    def answer(self, question: Question) -> Awaitable[Body | None]:
        """None: nothing is new, which is never remembered."""
        task = self._made.get(question)
        if task is None:
            task = asyncio.create_task(run_in_threadpool(self._make, question))
            self._made[question] = task
            task.add_done_callback(partial(self._keep, question))
        # A reader that hangs up must not take the answer away from the others.
        return asyncio.shield(task)

    def _keep(self, question: Question, task: "asyncio.Task[Body | None]") -> None:
        body = None if task.cancelled() or task.exception() is not None else task.result()
        seconds = _kept(question, body) if body is not None else 0.0
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self._made.pop, question, None)
        else:
            del self._made[question]


def _kept(question: Question, body: Body) -> float:
    """Seconds that ``body`` may go on answering ``question``."""
    everything = question[0] < 1
    if everything and body.seconds <= _COSTLY:
        return 0.0  # cheap enough to be always the newest
    return _KEPT if everything else _SHARED


def _body(catalog: LocalCatalog, question: Question) -> Body | None:
    after, root = question
    began = time.perf_counter()
    data = catalog.told(after, root)
    if data is None:
        return None
    compressed = len(data) > _COMPRESSED
    if compressed:
        data = gzip.compress(data, compresslevel=1)
    return Body(data, compressed, time.perf_counter() - began)
