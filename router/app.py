"""The router as one plain ASGI application: completions on the hot path, and a few small routes beside it.

No framework: per-request framework work cost more than everything the router promises.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from registry.clock import Clock, SystemClock
from registry.signing.keys import Signer
from router import metrics, observation
from router.admission import Admission, Alone, CountExchange, Hours, Patience, Queue
from router.attempts import Attempts
from router.circuit import Circuits
from router.entropy import Entropy
from router.epochs import Epochs
from router.exchange import Exchange, Message, Receive, Send
from router.feed import Feed
from router.groups import Groups
from router.headers import Headers
from router.limits import Cadence, Freshness, Limits, Timeouts
from router.logs import AccessLog
from router.malformed import Malformed
from router.pipeline import Pipeline
from router.placement import Leases, Placement
from router.ports import Counters, Engines, FeedSource, HeadSink, Peers, Spans, UsageSink
from router.reach import Reach, always, takes_connections
from router.records.heads import Heads
from router.records.log import RecordLog
from router.records.segments import Segments
from router.retention import Retainer
from router.shadowing import ShadowLimits, Shadows
from router.small import SmallRoutes
from router.surfaces import every
from router.surfaces.messages.question import bearer
from router.tokens import Tokens
from router.upstream import EnginePool
from router.usage import UsageReports

_log = logging.getLogger(__name__)
_WRITER = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_LEAST_SALT = 32
_CUT_SECONDS = 2.0
"""For the records of requests that the server cut; the log closes after them."""


class RouterApp:
    """Start and stop with ASGI's lifespan (uvicorn does), or with ``start`` and ``stop``."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        counts: CountExchange,
        usage: UsageReports | None,
        heads: Heads,
        small: SmallRoutes,
        metrics: metrics.Metrics,
        reach: Reach,
        spans: Spans | None,
        access: AccessLog | None,
        peers: Peers | None,
        groups: Groups,
        malformed: Malformed,
    ) -> None:
        self._pipeline = pipeline
        self.drain = pipeline.drain
        self.counts = counts
        self.admission = pipeline.admission
        self.queue = pipeline.attempts.queue
        self.feed = pipeline.feed
        self.records = pipeline.log
        self._heads = heads
        self.usage = usage
        self._small = small
        self._metrics = metrics
        self._reach = reach
        self._spans = spans
        self._access = access
        self._peers = peers
        self._groups = groups
        self.malformed = malformed
        """Told by the connections that such bytes came on."""
        self._stack = AsyncExitStack()
        self._surfaces = {surface.path: surface for surface in every.SURFACES}
        self.direct = frozenset(path.encode("ascii") for path in self._surfaces)
        """Paths whose POST requests may come to ``answer`` by themselves (``router.direct``)."""

    def metric_names(self) -> set[str]:
        """Every metric that ``/metrics`` may hold."""
        return self._metrics.names()

    async def start(self) -> None:
        """Raises RecordCorrupt or RecordsBusy when the audit trail cannot be continued."""
        async with AsyncExitStack() as stack:
            await self.records.open()
            stack.push_async_callback(self.records.close)
            stack.push_async_callback(self._pipeline.retainer.close)
            await self._pipeline.attempts.engines.start()
            stack.push_async_callback(self._pipeline.attempts.engines.stop)
            stack.push_async_callback(self._farewell)
            await self._groups.start()
            stack.push_async_callback(self._groups.stop)
            await self._heads.start()
            if self.usage is not None:
                await self.usage.start()
            if self._peers is not None:
                stack.push_async_callback(self._peers.close)
            if self._access is not None:
                stack.push_async_callback(self._access.close)
            await self._pipeline.attempts.placement.leases.start()
            stack.push_async_callback(self._pipeline.attempts.placement.leases.stop)
            await self._pipeline.shadows.start()
            stack.push_async_callback(self._pipeline.shadows.stop)
            if self._pipeline.tokens is not None:
                await self._pipeline.tokens.start()
                stack.push_async_callback(self._pipeline.tokens.stop)
            await self.counts.start()
            stack.push_async_callback(self.counts.stop)
            await self.feed.start()
            stack.push_async_callback(self.feed.stop)
            await self._reach.start()
            stack.push_async_callback(self._reach.stop)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        await self.drain.quiet(_CUT_SECONDS)
        await self._stack.aclose()

    async def _farewell(self) -> None:
        """Last words to others, who may be gone: at the same time, so that a stop waits for one of them."""

        async def reports() -> None:
            await self._heads.stop()
            if self.usage is not None:  # it counts what a head covers
                await self.usage.stop()

        async def spans() -> None:
            if self._spans is not None:
                await asyncio.to_thread(self._spans.close)

        await asyncio.gather(reports(), spans())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            surface = self._surfaces.get(scope["path"]) if scope["method"] == "POST" else None
            if b"%" in scope.get(
                "raw_path", b""
            ):  # a proxy's rules saw another path: no surface is spelled so
                surface = None
            exchange = Exchange(scope, receive, send)
            if surface is not None:
                await self.answer(exchange, scope["path"])
            else:
                await self._small.answer(exchange, scope)
        else:  # a websocket: accepting none closes it
            await send({"type": "websocket.close"})

    def answer(self, exchange: Exchange, path: str) -> Awaitable[None]:
        """A POST to one of the surfaces."""
        surface = self._surfaces[path]
        if surface is every.MESSAGES:
            exchange.headers = Headers(bearer(exchange.headers.raw))
        return self._pipeline.run(exchange, surface)

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
    counters: Counters | None = None,
    usage: UsageSink | None = None,
    patience: Patience | None = None,
    token_bytes: float = 1.0,
    spans: Spans | None = None,
    access: AccessLog | None = None,
    tokens: Tokens | None = None,
    shadows: ShadowLimits | None = None,
    retention_key: bytes | None = None,
    peers: Peers | None = None,
    clock: Clock | None = None,
    ticks: Callable[[], float] = time.monotonic,
    entropy: Callable[[int], bytes] | None = None,
) -> RouterApp:
    """Put a router together; nothing is opened or started before its lifespan begins.

    ``writer`` names this router's record chain (``records_dir/writer``) and must be its alone.
    ``salt_secret``: at least 32 random bytes, the same in all routers of a deployment.
    ``spans`` and ``access`` (``router.tracing``, ``router.logs``) are off unless given.
    ``tokens``: an identity provider's, taken beside keys if given.
    ``metrics_token``: if given, ``/metrics`` asks for it and names tenants; else it is open and names none.
    ``counters``: where routers meet; without, each keeps the limits alone. ``patience``: of the queue.
    ``usage``: where it is told what tenants used; without, the records alone tell it.
    ``retention_key``: wraps the tenants' keys of policies that keep keyed digests or texts; without, their
    requests are refused.
    ``peers``: the other routers, asked for receipts of their answers.
    ``token_bytes``: bytes of a prompt for which a token is reserved.
    Raises ValueError for values that would switch a protection off.
    """
    if not _WRITER.fullmatch(writer):
        raise ValueError("writer must be 1 to 63 of a-z, 0-9 and '-'")
    if len(salt_secret) < _LEAST_SALT:
        raise ValueError(f"salt_secret needs at least {_LEAST_SALT} bytes")
    if signer.role != "router":
        raise ValueError("the signer of a router needs the role router")
    clock, entropy = clock or SystemClock(), entropy or Entropy()
    cadence, limits = cadence or Cadence(), limits or Limits()
    segments = Segments(records_dir / writer, writer=writer, segment_bytes=cadence.segment_bytes)
    log = RecordLog(segments, writer=writer, clock=clock, cadence=cadence, key=signer.public)
    measured = metrics.Metrics(name_tenants=metrics_token is not None)
    timeouts = timeouts or Timeouts()
    asked = engines or EnginePool(timeouts)
    placement = Placement(Leases(seconds=timeouts.whole, ticks=ticks), Circuits(ticks))
    hours = Hours(wall=clock.now, ticks=ticks)
    queue = Queue(patience or Patience(), ticks=ticks)
    admission = Admission(hours, token_bytes=token_bytes)
    counts = CountExchange(
        counters or Alone(),
        admission,
        queue,
        hours,
        writer=f"{writer}.{entropy(8).hex()}",
        ticks=ticks,
    )
    followed = Feed(
        feed,
        freshness=freshness or Freshness(),
        ticks=ticks,
        adopted=lambda tables: queue.pin(tables.pins.on),
    )
    pipeline = Pipeline(
        admission=admission,
        attempts=Attempts(
            feed=followed,
            engines=asked,
            queue=queue,
            placement=placement,
            log=log,
            limits=limits,
            salt_secret=salt_secret,
            clock=clock,
            ticks=ticks,
            tokens=tokens,
        ),
        feed=followed,
        log=log,
        limits=limits,
        salt_secret=salt_secret,
        clock=clock,
        ticks=ticks,
        entropy=entropy,
        finished=observation.finishing(measured, spans, access),
        spans=spans,
        tokens=tokens,
        shadows=Shadows(
            engines=asked,
            placement=placement,
            room=queue,
            log=log,
            tables=followed.tables,
            tokens=tokens,
            salt_secret=salt_secret,
            clock=clock,
            ticks=ticks,
            entropy=entropy,
            limits=shadows,
        ),
        epochs=Epochs(ticks),
        groups=Groups(log, clock, entropy),
        retainer=Retainer.beside(
            records_dir / writer,
            retention_key,
            segment_bytes=cadence.segment_bytes,
            ticks=ticks,
            entropy=entropy,
        ),
    )
    sender = Heads(log=log, sink=heads, signer=signer, writer=writer, clock=clock, cadence=cadence)
    reports = (
        UsageReports(usage, log, records_dir / writer, writer=writer, sealed=lambda: sender.sealed)
        if usage is not None
        else None
    )
    reach = Reach(pipeline.feed.engine_urls, takes_connections if engines is None else always)
    observation.watch(measured, pipeline, sender, reports, reach, spans, access)
    malformed = Malformed(pipeline.groups)
    app = RouterApp(
        pipeline=pipeline,
        counts=counts,
        usage=reports,
        heads=sender,
        small=SmallRoutes(
            pipeline, signer=signer, metrics=measured, metrics_token=metrics_token, reach=reach, peers=peers
        ),
        metrics=measured,
        reach=reach,
        spans=spans,
        access=access,
        peers=peers,
        groups=pipeline.groups,
        malformed=malformed,
    )
    name, meaning = "tenon_malformed_requests_total", "Bytes that were no HTTP request"
    measured.each(name, meaning, "fault", lambda: malformed.counts, kind="counter")
    return app
