"""A completion request, from its first byte to its record: authenticate, parse, resolve, constrain, place,
lease, forward, rewrite, validate, meter, record, receipt."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from registry.clock import Clock
from registry.digests import Digest
from registry.models import Route
from router import problems, validation
from router.auth import authenticate, may_ask
from router.errors import (
    ClientGone,
    EngineFailed,
    EngineUnavailable,
    NothingSent,
    RecordUnavailable,
    RouterError,
)
from router.exchange import Exchange, RawHeaders
from router.feed import Feed
from router.forwarding import address, check_status, read_all
from router.limits import Limits
from router.metering import Usage
from router.moments import Moments
from router.placement import Placement, affinity_of
from router.places import Place
from router.ports import EngineAnswer, Engines
from router.records.log import RecordLog, durable
from router.records.record import Trace, content_digest
from router.resolution import Target, choose, resolve, unit_of
from router.surfaces.events import EventReader
from router.surfaces.surface import Order, Question, Streamed, Surface
from router.tables import Principal

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    feed: Feed
    engines: Engines
    placement: Placement
    log: RecordLog
    limits: Limits
    salt_secret: bytes
    clock: Clock
    ticks: Callable[[], float]
    entropy: Callable[[int], bytes]
    finished: Callable[[Trace, Moments], None]

    async def run(self, exchange: Exchange, surface: Surface) -> None:
        """Answer or refuse; either way one outcome is recorded before the response ends."""
        asked = _Asked(exchange, surface, Trace(id=f"rec-{self.entropy(16).hex()}"), Moments(self.ticks()))
        try:
            await self._answer(asked)
        except Exception as error:
            if not isinstance(error, RouterError):
                _log.exception("record %s: unexpected", asked.trace.id)
            await self._refuse(asked, problems.public(error))
        finally:
            self._stop_clock(asked)
            asked.moments.ended = self.ticks()
            self.finished(asked.trace, asked.moments)

    async def _answer(self, asked: "_Asked") -> None:
        exchange, surface, trace = asked.exchange, asked.surface, asked.trace
        tables = self.feed.tables()  # one view, from the first check to the record
        now = self.clock.now()
        principal = authenticate(exchange.headers, tables, now)
        _note_caller(trace, principal)
        may_ask(principal)
        body = await exchange.body(self.limits)
        asked.moments.read = self.ticks()
        question = surface.parse(_note_body(trace, body), self.limits)
        chosen = choose(principal, question.model, exchange.headers, tables)
        _note_route(trace, question, chosen)
        unit = unit_of(principal, exchange.headers, question.user)
        target = resolve(chosen, tables, unit=unit, now=now)
        order = surface.order(question, target, self.salt_secret)
        affinity = affinity_of(exchange.headers, question) if len(target.live.places) > 1 else 0
        async with exchange.connected(), self._forwarded(asked, target, order, affinity) as answer:
            if order.stream:
                end = await self._stream(asked, order, answer)
            else:
                end = await self._whole(asked, order, answer)
        trace.status = 200
        await self._record(asked)
        if order.stream:
            await exchange.end(end)
        else:
            await exchange.respond(200, end, asked.headers())

    @asynccontextmanager
    async def _forwarded(
        self, asked: "_Asked", target: Target, order: Order, affinity: int
    ) -> AsyncIterator[EngineAnswer]:
        """Place, lease and forward; the next engine is asked only if nothing was sent to this one."""
        trace, version = asked.trace, target.live.version
        trace.version, trace.epoch, trace.canary = version, target.live.epoch, target.live.canary
        tried: list[str] = []
        while (place := self.placement.next(target.live.places, affinity, tried)) is not None:
            tried.append(place.engine)
            try:
                with self.placement.visit(place, version):
                    _note_place(trace, place)
                    self._stop_clock(asked)
                    intent = self.log.append("intent", trace)
                    asked.moments.asked, asked.moments.url = self.ticks(), place.url
                    answer = await self.engines.ask(address(place.url, asked.surface.upstream), order.body)
                    try:
                        await durable(intent)  # written while the engine worked; no answer without it
                        check_status(answer.status, optional=asked.surface.optional)
                        yield answer
                    finally:
                        await answer.close()
                    return
            except NothingSent:
                asked.moments.retries += 1
        raise EngineUnavailable

    async def _whole(self, asked: "_Asked", order: Order, answer: EngineAnswer) -> bytes:
        data = await read_all(answer, self.limits.answer_bytes)
        asked.moments.first = asked.moments.last = self.ticks()
        rewritten = asked.surface.whole(data, order, asked.answer_id)
        _note_usage(asked.trace, rewritten.usage)
        asked.trace.finish_reasons = tuple(choice.finish_reason for choice in rewritten.choices)
        for choice in rewritten.choices:
            if not choice.tool_calls:  # their own schemas were checked by the surface
                validation.check(
                    order.policy, choice.content, choice.finish_reason, refused=choice.refused, own=order.own
                )
        asked.trace.answer, asked.trace.answer_of = Digest.of(rewritten.body), "body"
        return rewritten.body

    async def _stream(self, asked: "_Asked", order: Order, answer: EngineAnswer) -> bytes:
        """Pass events on as they come; returns the held-back end."""
        asked.streamed = streamed = asked.surface.streamed(order, asked.answer_id)
        async for piece in _events(answer, streamed, self.limits.answer_bytes):
            if piece:
                asked.moments.events += 1
                if not asked.moments.first:
                    asked.moments.first = self.ticks()
                if not asked.exchange.started:
                    await asked.exchange.begin(asked.headers())
                await asked.exchange.push(piece)
        asked.moments.last = self.ticks()
        end = streamed.finish()
        _note_usage(asked.trace, streamed.usage)
        asked.trace.finish_reasons = tuple(streamed.finish_reasons)
        asked.trace.answer, asked.trace.answer_of = content_digest(streamed.contents), "content"
        if not asked.exchange.started:  # everything came in the chunks that are held back
            await asked.exchange.begin(asked.headers())
        return end

    async def _record(self, asked: "_Asked") -> None:
        """The outcome, on disk. Raises RecordUnavailable."""
        self._stop_clock(asked)
        await durable(self.log.append("outcome", asked.trace))
        asked.recorded = True

    async def _refuse(self, asked: "_Asked", error: RouterError) -> None:
        if asked.recorded:
            return  # the answer is on record and only sending it failed: nobody is there to be told
        exchange, trace = asked.exchange, asked.trace
        trace.status, trace.code = error.status, error.code
        body = asked.surface.refusal(error)
        if exchange.started and asked.streamed is not None:
            trace.answer = content_digest(asked.streamed.contents_before_end)
            trace.answer_of = "content"
        elif isinstance(error, ClientGone):
            trace.answer = trace.answer_of = None
        else:
            trace.answer, trace.answer_of = Digest.of(body), "body"
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

    def _stop_clock(self, asked: "_Asked") -> None:
        asked.trace.milliseconds = round((self.ticks() - asked.moments.begun) * 1000)


@dataclass(slots=True)
class _Asked:
    """One request under way."""

    exchange: Exchange
    surface: Surface
    trace: Trace
    moments: Moments
    recorded: bool = False
    streamed: Streamed | None = field(default=None)

    @property
    def answer_id(self) -> str:
        return self.surface.prefix + self.trace.id.removeprefix("rec-")

    def headers(self, error: RouterError | None = None) -> RawHeaders:
        record = self.trace.id.encode("ascii")
        found: RawHeaders = [(b"x-tenon-record", record), (b"x-request-id", record)]
        if error is None and self.trace.version is not None and self.trace.engine is not None:
            found.append((b"x-tenon-version", self.trace.version.encode("ascii")))
            found.append((b"x-tenon-engine", self.trace.engine.encode("ascii")))
        if error is not None and error.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        return found


async def _events(answer: EngineAnswer, streamed: Streamed, limit: int) -> AsyncIterator[bytes]:
    """What may be sent after each piece of the engine's stream, until its ``[DONE]`` or its end.

    When an event is refused, what came before it in the same piece is yielded first.
    """
    reader, size = EventReader(), 0
    async for piece in answer.chunks():
        size += len(piece)
        if size > limit:
            raise EngineFailed
        ready: list[bytes] = []
        for event in reader.feed(piece):
            if event == b"[DONE]":
                yield b"".join(ready)
                return
            try:
                ready.append(streamed.accept(event))
            except RouterError:
                yield b"".join(ready)
                raise
        yield b"".join(ready)


def _note_caller(trace: Trace, principal: Principal) -> None:
    trace.tenant, trace.key = principal.tenant, principal.key


def _note_body(trace: Trace, body: bytes) -> bytes:
    trace.request = Digest.of(body)
    return body


def _note_route(trace: Trace, question: Question, route: Route) -> None:
    trace.route, trace.policy, trace.model = route.name, route.policy, route.model
    trace.adapter, trace.alias, trace.stream = route.adapter, route.alias, question.stream


def _note_place(trace: Trace, place: Place) -> None:
    trace.engine, trace.boot, trace.attestation = place.engine, place.boot, place.attestation


def _note_usage(trace: Trace, usage: Usage | None) -> None:
    if usage is not None:
        trace.prompt_tokens, trace.completion_tokens = usage.prompt, usage.completion
