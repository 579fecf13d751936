"""A completion request, from its first byte to its record: authenticate, parse, resolve, constrain, admit,
place, lease, forward, rewrite, validate, meter, record; a receipt is made of the record for who asks."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from registry.clock import Clock
from registry.models import Retention
from router import problems
from router.admission import LARGE, Admission, cost
from router.asked import Asked
from router.attempts import Attempts
from router.auth import authenticate, may_ask
from router.drain import Drain
from router.epochs import Epochs, names_conversation
from router.errors import (
    ClientGone,
    OutputInvalid,
    OutputRefused,
    OutputTruncated,
    RecordUnavailable,
    RetentionUnavailable,
    RouterDraining,
    RouterError,
    RouterStopped,
)
from router.exchange import Exchange
from router.feed import Feed
from router.groups import Groups
from router.limits import Limits
from router.moments import Moments
from router.placement import affinity_of
from router.ports import Spans
from router.records.log import RecordLog
from router.records.record import Trace
from router.resolution import Target, choose, resolve, unit_of
from router.retention import Kept, Retainer, kept, plain_digests
from router.schemas import Schemas
from router.shadowing import Shadows
from router.stamps import Stamps
from router.surfaces.again import again
from router.surfaces.surface import Surface
from router.tables import Principal, Tables
from router.tokens import Tokens

_log = logging.getLogger(__name__)
_FAREWELL_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    feed: Feed
    admission: Admission
    attempts: Attempts
    log: RecordLog
    limits: Limits
    salt_secret: bytes
    clock: Clock
    ticks: Callable[[], float]
    entropy: Callable[[int], bytes]
    finished: Callable[[Trace, Moments], None]
    shadows: Shadows
    epochs: Epochs
    groups: Groups
    spans: Spans | None = None
    drain: Drain = field(default_factory=Drain)
    tokens: Tokens | None = None
    schemas: Schemas = field(default_factory=Schemas)
    stamps: Stamps = field(default_factory=Stamps)
    retainer: Retainer = field(default_factory=lambda: Retainer(None, None))

    async def run(self, exchange: Exchange, surface: Surface) -> None:
        """Answer or refuse; either way one outcome is recorded before the response ends."""
        moments = Moments(self.ticks(), surface=surface.name, path=surface.path)
        if self.spans is not None:
            moments.context = self.spans.begin(exchange.headers.every("traceparent"))
        self.drain.busy += 1
        asked = Asked(exchange, surface, Trace(id=f"rec-{self.entropy(16).hex()}"), moments)
        try:
            try:
                await self._answer(asked)
            except Exception as error:
                if not isinstance(error, RouterError):
                    _log.exception("record %s: unexpected", asked.trace.id)
                await self._refuse(asked, problems.public(error))
        except asyncio.CancelledError:  # the end of a drain
            await self._cut(asked)
            raise
        finally:
            self.drain.busy -= 1
            asked.settle()
            asked.stop_clock(self.ticks())
            asked.moments.ended = self.ticks()
            self.finished(asked.trace, asked.moments)

    async def _answer(self, asked: Asked) -> None:
        exchange, surface, trace = asked.exchange, asked.surface, asked.trace
        if self.drain.under_way:
            raise RouterDraining
        tables = self.feed.tables()  # one view, from the first check to the record
        now = self.clock.now()
        trace.started_at, trace.surface = self.stamps(now), surface.name
        principal = authenticate(exchange.headers, tables, now, self.tokens)
        asked.note_caller(principal)
        may_ask(principal)
        body = exchange.arrived(self.limits)
        if body is None:
            body = await exchange.body(self.limits)
        asked.moments.read = self.ticks()
        if self.feed.latest is not tables:  # the client took its time
            tables, now = self.feed.tables(), self.clock.now()
            principal = authenticate(exchange.headers, tables, now, self.tokens)
        asked.note_body(body)
        large = len(body) > LARGE
        if large:
            self.admission.enter(principal, tables, len(body))
        asked.question = question = surface.parse(body, self.limits)
        asked.target = target = self._resolve(asked, principal, tables, now)
        asked.ruled = True
        if target.policy.retention is not Retention.DIGESTS:
            await self._retain(asked, target, body)
        asked.order = order = surface.order(question, target, self.salt_secret)
        asked.ticket = self.admission.admit(
            principal, tables, *cost(body, question, order), 0 if large else 1
        )
        asked.admitted = True
        asked.moments.admitted = self.ticks()
        affinity = affinity_of(exchange.headers, question) if len(target.live.places) > 1 else 0
        async with exchange.connected() as asked.work:
            if order.tools is not None or order.own is not None:
                await self.schemas.read(principal.tenant, order.schemas)
                if self.feed.latest is not tables:
                    self.attempts.renew(asked)
            ask = self._satisfying if order.policy.retries else self.attempts.answer
            end = await ask(asked, affinity)
        asked.settle()
        if asked.conversation:
            self.epochs.answered(asked.conversation, asked.target)
        trace.status = 200
        if asked.kept is not None:
            await self._keep(asked, asked.kept)
        await self._record(asked)
        if order.stream:
            await exchange.end(end)
        else:
            await exchange.respond(200, end, asked.headers())
        if asked.target.shadows:  # the client has its answer: nothing delays it now
            self._copy(asked, len(body))

    def _resolve(self, asked: Asked, principal: Principal, tables: Tables, now: datetime) -> Target:
        headers, question = asked.exchange.headers, asked.question
        route = choose(principal, question.model, headers, tables)
        asked.note_route(question, route)
        unit = unit_of(principal, headers, question.user)
        if names_conversation(unit):
            asked.conversation = unit
            asked.began = self.epochs.began(route.tenant, route.adapter, route.alias, unit, headers)
        return resolve(route, tables, unit=unit, now=now, began=asked.began)

    def _copy(self, asked: Asked, size: int) -> None:
        copies = asked.question, asked.target, asked.trace, asked.said, size, asked.order.own
        self.shadows.offer(asked.exchange.headers, asked.surface, *copies)

    async def _satisfying(self, asked: Asked, affinity: int) -> bytes:
        """An answer that satisfies the policy; a bad one may be asked for again while nothing was sent."""
        retries = asked.order.policy.retries
        while True:
            try:
                return await self.attempts.answer(asked, affinity)
            except (OutputInvalid, OutputTruncated, OutputRefused):
                if asked.repeats == retries or asked.exchange.started:
                    raise
                asked.discard()
                self.attempts.renew(asked)
                asked.repeats += 1
                asked.order = again(asked.order)

    async def _retain(self, asked: Asked, target: Target, body: bytes) -> None:
        """Before anything of the question is written. Raises RetentionUnavailable."""
        trace, mode = asked.trace, target.policy.retention
        trace.request, trace.retention = None, mode.value
        asked.note_kept(await self.retainer.begin(mode, target.route.tenant, body), body)

    async def _keep(self, asked: Asked, left: Kept) -> None:
        """The texts, on disk before the record that vouches for them. Raises RecordUnavailable."""
        text = self.retainer.append(asked.trace.id, asked.trace.tenant or "", left)
        if text is not None:
            await kept(text)

    def _unknown(self, trace: Trace) -> None:
        """A request refused before its policy was known leaves what any policy of the tenant lets it."""
        tables = self.feed.latest
        if tables is None or not plain_digests(tables, trace.tenant or ""):
            trace.request, trace.retention = None, "none"

    async def _record(self, asked: Asked) -> None:
        """The outcome, on disk. Raises RecordUnavailable."""
        asked.stop_clock(self.ticks())
        written = self.log.append("outcome", asked.trace)
        asked.recorded = True  # from here on: whoever is cut while it is written must not write another one
        if not await written:
            asked.recorded = False
            raise RecordUnavailable

    async def _cut(self, asked: Asked) -> None:
        """The server stops this request. What its client was told is on record, and it is told the rest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):  # a client that takes nothing holds no stop up
                await self._refuse(asked, RouterStopped())

    async def _refuse(self, asked: Asked, error: RouterError) -> None:
        if asked.recorded:
            return  # the answer is on record and only sending it failed: nobody is there to be told
        exchange, trace = asked.exchange, asked.trace
        trace.status, trace.code = error.status, error.code
        if trace.engine is None and self.groups.count(trace):
            asked.recorded = True
        else:
            error = await self._record_refusal(asked, error)
        if isinstance(error, ClientGone):
            return
        if exchange.started and asked.streamed is not None:
            await exchange.end(asked.streamed.broken(error))
        else:
            await exchange.respond(error.status, asked.surface.refusal(error), asked.headers(error))

    async def _record_refusal(self, asked: Asked, error: RouterError) -> RouterError:
        """What its client is told: something else where it cannot be recorded."""
        exchange, trace = asked.exchange, asked.trace
        if exchange.started and asked.streamed is not None:
            asked.note_contents(asked.streamed.contents_before_end)
            trace.answer_of = "content"  # something was sent, whether a digest of it may be kept or not
        elif isinstance(error, ClientGone):
            trace.answer = trace.answer_of = None
        else:
            asked.note_answer(asked.surface.refusal(error))
        if not asked.ruled and trace.request is not None:
            self._unknown(trace)
        if asked.kept is not None and asked.admitted:  # who is sent away at the door fills no disk
            with suppress(RecordUnavailable, RetentionUnavailable):  # nothing is given that must be kept
                await self._keep(asked, asked.kept)
        try:
            await self._record(asked)
        except RecordUnavailable as unavailable:
            trace.status, trace.code = unavailable.status, unavailable.code
            return unavailable
        return error
