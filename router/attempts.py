"""Engines are asked for an answer, one after another, until one gives it; its client gets it as it comes."""

import asyncio
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass

from registry.clock import Clock
from registry.digests import Digest
from router.admission import Queue
from router.asked import Asked
from router.errors import (
    EngineAnswered,
    EngineDied,
    EngineTimeout,
    EngineUnavailable,
    NothingSent,
    OutputInvalid,
    OutputRefused,
    OutputTruncated,
    RecordUnavailable,
    RouterError,
)
from router.feed import Feed
from router.forwarding import address, check_status, judge, read_all
from router.limits import Limits
from router.placement import Placement
from router.places import Place
from router.ports import EngineAnswer, Engines
from router.records.log import RecordLog, durable
from router.standing import renew
from router.surfaces.engine import usage_of
from router.surfaces.events import EventReader
from router.surfaces.surface import Order
from router.tokens import Tokens

_MOST_BROKEN = 1
"""Engines that may die under a request before it is given up: a request that kills engines (vLLM had such)
takes two of them with it, not all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    feed: Feed
    engines: Engines
    queue: Queue
    placement: Placement
    log: RecordLog
    limits: Limits
    salt_secret: bytes
    clock: Clock
    ticks: Callable[[], float]
    tokens: Tokens | None = None

    async def answer(self, asked: Asked, affinity: int) -> bytes:
        """Ask the engines in their order, until one answers; returns the end of its answer.

        Generating has no effects, so whoever has nothing of an answer may be given another engine's.
        """
        tried, broken, late, began = list[str](), 0, False, 0.0
        failure: RouterError | None = None
        asked.note_live()
        tenant = asked.target.route.tenant  # whatever changes meanwhile
        while (place := self.placement.next(asked.target.live.places, affinity, tried, tenant)) is not None:
            version = asked.target.live.version
            if not self.queue.enter(place, tenant, version):
                place, late = await self._turn(asked, tried), True
            sent = asked.sent
            try:
                if late:
                    self.renew(asked)
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
                failure, began = error, asked.moments.asked
                self._lost(asked, error)
            finally:
                self.queue.leave(place, tenant, version)
            late = True
        raise failure or EngineUnavailable()

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
            asked.stop_clock(self.ticks())
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

    def renew(self, asked: Asked) -> None:
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
                if answer.status != 200:
                    optional, media = asked.surface.optional, asked.question.media
                    check_status(answer.status, optional=optional, media=media)
                if order.stream:
                    return await self._stream(asked, order, answer)
                return await self._whole(asked, order, answer)
            finally:
                await answer.close()

    async def _intend(self, asked: Asked) -> None:
        """A line on disk before anybody is asked. Raises RecordUnavailable."""
        asked.stop_clock(self.ticks())
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
        judge(rewritten, order)
        asked.note_answer(rewritten.body)
        return rewritten.body

    async def _stream(self, asked: Asked, order: Order, answer: EngineAnswer) -> bytes:
        """Pass events on as they come; returns the held-back end."""
        asked.streamed = streamed = asked.surface.streamed(order, asked.answer_id)
        reader, size, over = EventReader(), 0, False
        asked.arrived = 0
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
                asked.arrived += len(ready)
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
