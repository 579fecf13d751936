"""A completion request, from its first byte to its record: authenticate, parse, resolve, constrain, admit,
place, lease, forward, rewrite, validate, meter, record; a receipt is made of the record for who asks."""

import asyncio
import logging
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from registry.clock import Clock
from registry.digests import Digest
from registry.models import Retention
from router import problems, validation
from router.admission import Admission, Queue, cost
from router.asked import Asked
from router.auth import authenticate, may_ask
from router.drain import Drain
from router.epochs import Epochs, names_conversation
from router.errors import (
    ClientGone,
    EngineAnswered,
    EngineDied,
    EngineTimeout,
    EngineUnavailable,
    NothingSent,
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
from router.forwarding import address, check_status, read_all
from router.limits import Limits
from router.moments import Moments
from router.placement import Placement, affinity_of
from router.places import Place
from router.ports import EngineAnswer, Engines, Spans
from router.records.log import RecordLog, durable
from router.records.record import Trace
from router.resolution import Target, choose, resolve, unit_of
from router.retention import Kept, Retainer, kept, plain_digests
from router.schemas import Schemas
from router.shadowing import Shadows
from router.stamps import Stamps
from router.standing import renew
from router.surfaces.again import again
from router.surfaces.engine import usage_of
from router.surfaces.events import EventReader
from router.surfaces.surface import Order, Surface
from router.tables import Principal, Tables
from router.tokens import Tokens

_log = logging.getLogger(__name__)
_MOST_BROKEN = 1
"""Engines that may die under a request before it is given up: a request that kills engines (vLLM had such)
takes two of them with it, not all."""

_FAREWELL_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    feed: Feed
    engines: Engines
    admission: Admission
    queue: Queue
    placement: Placement
    log: RecordLog
    limits: Limits
    salt_secret: bytes
    clock: Clock
    ticks: Callable[[], float]
    entropy: Callable[[int], bytes]
    finished: Callable[[Trace, Moments], None]
    shadows: Shadows
    epochs: Epochs
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
            self._stop_clock(asked)
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
        asked.question = question = surface.parse(asked.note_body(body), self.limits)
        asked.target = target = self._resolve(asked, principal, tables, now)
        asked.ruled = True
        if target.policy.retention is not Retention.DIGESTS:
            await self._retain(asked, target, body)
        asked.order = order = surface.order(question, target, self.salt_secret)
        asked.ticket = self.admission.admit(principal, tables, *cost(body, question, order))
        asked.admitted = True
        asked.moments.admitted = self.ticks()
        affinity = affinity_of(exchange.headers, question) if len(target.live.places) > 1 else 0
        async with exchange.connected() as asked.work:
            if order.tools is not None or order.own is not None:
                await self.schemas.read(principal.tenant, order.schemas)
                if self.feed.latest is not tables:
                    self._renew(asked)
            ask = self._satisfying if order.policy.retries else self._forward
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
                return await self._forward(asked, affinity)
            except (OutputInvalid, OutputTruncated, OutputRefused):
                if asked.repeats == retries or asked.exchange.started:
                    raise
                asked.discard()
                self._renew(asked)
                asked.repeats += 1
                asked.order = again(asked.order)

    async def _forward(self, asked: Asked, affinity: int) -> bytes:
        """Ask the engines in their order, until one answers; returns the end of its answer.

        Generating has no effects, so whoever has nothing of an answer may be given another engine's.
        """
        tried, broken, late, began = list[str](), 0, False, self.ticks()
        failure: RouterError = EngineUnavailable()
        asked.note_live()
        tenant = asked.target.route.tenant  # whatever changes meanwhile
        while (place := self.placement.next(asked.target.live.places, affinity, tried, tenant)) is not None:
            version = asked.target.live.version
            if not self.queue.enter(place, tenant, version):
                place, late = await self._turn(asked, tried), True
            sent = asked.sent
            try:
                if late:
                    self._renew(asked)
                    if version != asked.target.live.version or place not in asked.target.live.places:
                        continue
                tried.append(place.engine)
                if broken:
                    return await self._ask_again(asked, place, version, began)
                return await self._ask(asked, place, version)
            except NothingSent:
                asked.sent = sent
                asked.moments.retries += 1
            except (EngineDied, EngineUnavailable) as error:  # perhaps of this very request
                broken += 1
                if broken > _MOST_BROKEN or asked.exchange.started:
                    raise
                failure = error
                self._lost(asked, error)
            finally:
                self.queue.leave(place, tenant, version)
            late = True
        raise failure

    async def _ask_again(self, asked: Asked, place: Place, version: Digest, began: float) -> bytes:
        """After an engine died: in what is left of the time that one exchange may take."""
        left = self.placement.leases.seconds - (self.ticks() - began)
        try:
            async with asyncio.timeout(left):
                return await self._ask(asked, place, version)
        except TimeoutError:
            raise EngineTimeout from None

    def _lost(self, asked: Asked, error: RouterError) -> None:
        """What an engine was asked for died with it. It is on record before what another engine answers."""
        asked.moments.retries += 1
        asked.moments.lost += self.ticks() - asked.moments.asked
        if isinstance(error, EngineDied):
            asked.lose()
        if not asked.order.policy.intent_durable:  # else it was written before the engine was asked
            self._stop_clock(asked)
            with suppress(RecordUnavailable):  # who asks next hears of it
                self.log.append("intent", asked.trace)

    async def _turn(self, asked: Asked, tried: Container[str]) -> Place:
        """Wait for a place in any engine that may be asked. Raises Overloaded."""
        admits, began, live = self.placement.circuits.admits, self.ticks(), asked.target.live
        tenant = asked.target.route.tenant
        places = [place for place in live.places if place.engine not in tried and admits(place, tenant)]
        try:
            return await self.queue.wait(
                places,
                tenant,
                live.version,
                weight=asked.ticket.weight,
                waited=asked.moments.queued,
            )
        finally:
            asked.moments.queued += self.ticks() - began

    def _renew(self, asked: Asked) -> None:
        renew(asked, self.feed.tables(), self.clock.now(), self.tokens, self.salt_secret)

    async def _ask(self, asked: Asked, place: Place, version: Digest) -> bytes:
        """One engine, held from before it is asked until its last byte is read."""
        order = asked.order
        with self.placement.visit(place, version, asked.work, asked.target.route.tenant):
            asked.note_place(place)
            if order.policy.intent_durable:
                await self._intend(asked)
            else:
                self.log.check()
            asked.moments.asked, asked.moments.url = self.ticks(), place.url
            asked.sent = True
            answer = await self.engines.ask(
                address(place.url, asked.surface.upstream), order.body, asked.traceparent
            )
            try:
                check_status(answer.status, optional=asked.surface.optional)
                if order.stream:
                    return await self._stream(asked, order, answer)
                return await self._whole(asked, order, answer)
            finally:
                await answer.close()

    async def _intend(self, asked: Asked) -> None:
        """A line on disk before anybody is asked. Raises RecordUnavailable."""
        self._stop_clock(asked)
        await durable(self.log.append("intent", asked.trace))

    async def _whole(self, asked: Asked, order: Order, answer: EngineAnswer) -> bytes:
        data = await read_all(answer, self.limits.answer_bytes)
        asked.moments.first = asked.moments.last = self.ticks()
        try:
            rewritten = asked.whole = asked.surface.whole(data, order, asked.answer_id)
        except (OutputInvalid, OutputTruncated, OutputRefused):
            asked.note_usage(usage_of(data))
            raise
        asked.note_usage(rewritten.usage)
        asked.trace.finish_reasons = tuple(choice.finish_reason for choice in rewritten.choices)
        for choice in rewritten.choices:
            if not choice.tool_calls:  # their own schemas were checked by the surface
                validation.check(
                    order.policy, choice.content, choice.finish_reason, refused=choice.refused, own=order.own
                )
        asked.note_answer(rewritten.body)
        return rewritten.body

    async def _stream(self, asked: Asked, order: Order, answer: EngineAnswer) -> bytes:
        """Pass events on as they come; returns the held-back end."""
        asked.streamed = streamed = asked.surface.streamed(order, asked.answer_id)
        reader, size, over = EventReader(), 0, False
        held: list[bytes] | None = [] if order.held else None
        while not over and (piece := await answer.read()):
            size += len(piece)
            if size > self.limits.answer_bytes:
                raise EngineAnswered
            ready: list[bytes] = []
            try:
                for event in reader.feed(piece):
                    if event == b"[DONE]":
                        over = True
                        break
                    ready.append(streamed.accept(event))
            finally:  # what came before a refused event in the same piece goes out first
                if held is None:
                    await self._push(asked, b"".join(ready))
                else:
                    held += ready
        asked.moments.last = self.ticks()
        end = streamed.finish()
        if held is not None:
            await self._push(asked, b"".join(held))
        asked.note_usage(streamed.usage)
        asked.trace.finish_reasons = tuple(streamed.finish_reasons)
        asked.note_contents(streamed.contents)
        if not asked.exchange.started:  # everything came in the chunks that are held back
            await asked.exchange.begin(asked.headers())
        return end

    async def _push(self, asked: Asked, events: bytes) -> None:
        """One write for all that arrived together."""
        if not events:
            return
        asked.moments.events += 1
        if not asked.exchange.started:
            asked.moments.first = self.ticks()
            await asked.exchange.begin(asked.headers())
        await asked.exchange.push(events)

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
        self._stop_clock(asked)
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
        body = asked.surface.refusal(error)
        if exchange.started and asked.streamed is not None:
            asked.note_contents(asked.streamed.contents_before_end)
            trace.answer_of = "content"  # something was sent, whether a digest of it may be kept or not
        elif isinstance(error, ClientGone):
            trace.answer = trace.answer_of = None
        else:
            asked.note_answer(body)
        if not asked.ruled and trace.request is not None:
            self._unknown(trace)
        if asked.kept is not None and asked.admitted:  # who is sent away at the door fills no disk
            with suppress(RecordUnavailable, RetentionUnavailable):  # nothing is given that must be kept
                await self._keep(asked, asked.kept)
        try:
            await self._record(asked)
        except RecordUnavailable as unavailable:
            error = unavailable
            trace.status, trace.code = error.status, error.code
        if isinstance(error, ClientGone):
            return
        if exchange.started and asked.streamed is not None:
            await exchange.end(asked.streamed.broken(error))
        else:
            await exchange.respond(error.status, asked.surface.refusal(error), asked.headers(error))

    def _stop_clock(self, asked: Asked) -> None:
        asked.trace.milliseconds = round((self.ticks() - asked.moments.begun) * 1000)
