"""The router as one plain ASGI application: completions on the hot path, and a few small routes beside it.

No framework: per-request framework work cost more than everything the router promises (docs/concepts).
"""

import logging
import re
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson

from registry.clock import Clock, SystemClock
from registry.signing.keys import Signer
from router import metrics, problems, receipts
from router.auth import authenticate
from router.circuit import Circuits
from router.errors import InvalidApiKey, PathNotFound, ReceiptNotFound, RouterError
from router.exchange import Exchange, Message, RawHeaders, Receive, Send
from router.feed import Feed
from router.forwarding import AiohttpEngines
from router.limits import Cadence, Freshness, Limits, Timeouts
from router.pipeline import Pipeline
from router.placement import Leases, Placement
from router.ports import Engines, FeedSource, HeadSink
from router.records.heads import Heads
from router.records.log import RecordLog
from router.records.segments import Segments
from router.surfaces import every

_log = logging.getLogger(__name__)
_WRITER = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_LEAST_SALT = 32


class RouterApp:
    """Start and stop with ASGI's lifespan (uvicorn does), or with ``start`` and ``stop``."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        heads: Heads,
        signer: Signer,
        metrics: metrics.Metrics,
        metrics_token: str | None,
    ) -> None:
        self._pipeline = pipeline
        self.feed = pipeline.feed
        self.records = pipeline.log
        self._heads = heads
        self._signer = signer
        self._metrics = metrics
        self._metrics_token = metrics_token
        self._stack = AsyncExitStack()
        self._surfaces = {surface.path: surface for surface in every.SURFACES}
        self._routes = {
            "/v1/models": self._models,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._scrape,
        }

    async def start(self) -> None:
        """Raises RecordCorrupt or RecordsBusy when the audit trail cannot be continued."""
        async with AsyncExitStack() as stack:
            await self.records.open()
            stack.push_async_callback(self.records.close)
            await self._pipeline.engines.start()
            stack.push_async_callback(self._pipeline.engines.stop)
            await self._heads.start()
            stack.push_async_callback(self._heads.stop)
            await self.feed.start()
            stack.push_async_callback(self.feed.stop)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        await self._stack.aclose()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            exchange = Exchange(scope, receive, send)
            surface = self._surfaces.get(scope["path"]) if scope["method"] == "POST" else None
            if surface is not None:
                await self._pipeline.run(exchange, surface)
            else:
                await self._small(exchange, scope)
        else:  # a websocket: accepting none closes it
            await send({"type": "websocket.close"})

    async def _small(self, exchange: Exchange, scope: Message) -> None:
        path = scope["path"]
        try:
            if scope["method"] != "GET":
                raise PathNotFound
            if path in self._routes:
                await self._routes[path](exchange)
            elif path.startswith("/v1/receipts/"):
                await self._receipt(exchange, path.removeprefix("/v1/receipts/"))
            else:
                raise PathNotFound
        except Exception as error:
            if not isinstance(error, RouterError):
                _log.exception("unexpected in a small route")
            if not exchange.started:
                refusal = problems.public(error)
                await exchange.respond(refusal.status, problems.body(refusal), _challenge(refusal))

    async def _models(self, exchange: Exchange) -> None:
        tables = self.feed.tables()
        principal = authenticate(exchange.headers, tables, self._pipeline.clock.now())
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": principal.tenant}
            for name in tables.models(principal.tenant)
        ]
        await exchange.respond(200, orjson.dumps({"object": "list", "data": listed}), [])

    async def _receipt(self, exchange: Exchange, record: str) -> None:
        principal = authenticate(exchange.headers, self.feed.tables(), self._pipeline.clock.now())
        line = await self.records.read(record, principal.tenant)
        if line is None:
            raise ReceiptNotFound
        await exchange.respond(200, receipts.issue(line, self._signer).canonical(), [])

    async def _healthz(self, exchange: Exchange) -> None:
        await exchange.respond(200, b'{"ok":true}', [])

    async def _readyz(self, exchange: Exchange) -> None:
        reasons = self.feed.reasons()
        if self.records.fault is not None:
            reasons.append(f"records cannot be written: {self.records.fault}")
        body: dict[str, Any] = {"ready": not reasons, "reasons": reasons}
        await exchange.respond(503 if reasons else 200, orjson.dumps(body), [])

    async def _scrape(self, exchange: Exchange) -> None:
        if self._metrics_token is not None:
            shown = exchange.headers.every("authorization")
            expected = f"Bearer {self._metrics_token}".encode()
            if len(shown) != 1 or not secrets.compare_digest(shown[0].encode(), expected):
                raise InvalidApiKey
        body = self._metrics.render(self._pipeline.placement.leases.engines())
        await exchange.respond(200, body, [(b"content-type", metrics.CONTENT_TYPE.encode())])

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            _log.exception("the router cannot start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


def create_app(
    *,
    feed: FeedSource,
    heads: HeadSink,
    signer: Signer,
    records_dir: Path,
    writer: str,
    salt_secret: bytes,
    engines: Engines | None = None,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    freshness: Freshness | None = None,
    cadence: Cadence | None = None,
    metrics_token: str | None = None,
    clock: Clock | None = None,
    ticks: Callable[[], float] = time.monotonic,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> RouterApp:
    """Put a router together; nothing is opened or started before its lifespan begins.

    ``writer`` names this router's record chain (``records_dir/writer``) and must be its alone.
    ``salt_secret``: at least 32 random bytes, the same in all routers of a deployment.
    ``metrics_token``: if given, ``/metrics`` asks for it and names tenants; else it is open and names none.
    Raises ValueError for values that would switch a protection off.
    """
    if not _WRITER.fullmatch(writer):
        raise ValueError("writer must be 1 to 63 of a-z, 0-9 and '-'")
    if len(salt_secret) < _LEAST_SALT:
        raise ValueError(f"salt_secret needs at least {_LEAST_SALT} bytes")
    if signer.role != "router":
        raise ValueError("the signer of a router needs the role router")
    clock = clock or SystemClock()
    cadence = cadence or Cadence()
    segments = Segments(records_dir / writer, writer=writer, segment_bytes=cadence.segment_bytes)
    log = RecordLog(segments, writer=writer, clock=clock, cadence=cadence)
    measured = metrics.Metrics(name_tenants=metrics_token is not None)
    pipeline = Pipeline(
        feed=Feed(feed, freshness=freshness or Freshness(), ticks=ticks),
        engines=engines or AiohttpEngines(timeouts or Timeouts()),
        placement=Placement(Leases(ticks=ticks), Circuits(ticks)),
        log=log,
        limits=limits or Limits(),
        salt_secret=salt_secret,
        clock=clock,
        ticks=ticks,
        entropy=entropy,
        finished=measured.finished,
    )
    sender = Heads(log=log, sink=heads, signer=signer, writer=writer, clock=clock, cadence=cadence)
    _watch(measured, pipeline, sender)
    return RouterApp(
        pipeline=pipeline, heads=sender, signer=signer, metrics=measured, metrics_token=metrics_token
    )


def _watch(measured: metrics.Metrics, pipeline: Pipeline, heads: Heads) -> None:
    feed, log = pipeline.feed, pipeline.log
    measured.watch("tenon_feed_age_seconds", "Since the registry was last heard", lambda: feed.age)
    measured.watch("tenon_feed_lag_entries", "Log entries told of and not in force yet", lambda: feed.lag)
    measured.watch(
        "tenon_feed_size", "Log entries behind the tables", lambda: feed.latest.size if feed.latest else 0
    )
    measured.watch(
        "tenon_attested_places", "Usable attested slots", lambda: feed.latest.attested if feed.latest else 0
    )
    measured.watch(
        "tenon_feed_faults",
        "Parts of the state left out",
        lambda: len(feed.latest.faults) if feed.latest else 0,
    )
    measured.watch("tenon_records_waiting", "Record lines not yet on disk", lambda: log.waiting)
    measured.watch("tenon_records_broken", "1 while records cannot be written", lambda: log.fault is not None)
    measured.watch("tenon_record_heads_unsent", "Durable lines no accepted head covers", lambda: heads.unsent)


def _challenge(error: RouterError) -> RawHeaders:
    return [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
