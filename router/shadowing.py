"""Copies of requests for an alias's shadow versions: asked after the primary's answer, answered to nobody.

Whatever happens to a copy, the primary has its answer already. Copies wait in a bounded queue and are asked a
few at a time, only where an engine has room that nobody waits for and that is no adapter's last; those that
find none are dropped and counted, and so are those that the rules of their turn do not allow any more, and
those under way when a request begins to wait for their engine. They are no request of the tenant's: neither
its limits nor its usage know of them.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from registry.clock import Clock, stamp
from registry.digests import Digest
from router import problems
from router.admission import Loan
from router.errors import EngineAnswered, EngineTimeout, RouterError
from router.forwarding import address, check_status, judge, read_all
from router.headers import Headers
from router.placement import Placement
from router.places import Place
from router.ports import EngineAnswer, Engines
from router.records.log import RecordLog, durable
from router.records.record import Trace, content_digest
from router.resolution import Target
from router.standing import look_again
from router.surfaces.events import EventReader
from router.surfaces.surface import Question, Rewritten, Streamed, Surface
from router.tables import Live, Tables
from router.tokens import Tokens

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowLimits:
    waiting: int = 64
    """Copies in the queue."""
    waiting_bytes: int = 16 << 20
    """Of the bodies of all of them: 64 of the largest bodies would be 256 MB."""
    at_once: int = 4
    seconds: float = 60.0
    """For one copy, its engine's whole answer included."""
    answer_bytes: int = 32 << 20

    def __post_init__(self) -> None:
        if min(self.waiting, self.waiting_bytes, self.at_once, self.answer_bytes) < 1 or self.seconds <= 0:
            raise ValueError("every limit of shadows must be positive")


class Room(Protocol):
    """Who may use an engine now: ``router.admission.queue.Queue``."""

    def lend(self, place: Place, tenant: str, version: Digest, loan: Loan) -> bool: ...

    def give_back(self, place: Place, tenant: str, version: Digest, loan: Loan) -> None: ...


class _Copy(NamedTuple):
    headers: Headers
    """Of the primary: who asked, and by which rules it was routed."""
    surface: Surface
    question: Question
    target: Target
    """Of the primary."""
    version: Digest
    """The shadow."""
    primary: Trace
    said: tuple[str, ...]
    size: int
    own: Callable[[Any], bool] | None


class Shadows:
    """``start`` first; before it every copy is dropped."""

    def __init__(
        self,
        *,
        engines: Engines,
        placement: Placement,
        room: Room,
        log: RecordLog,
        tables: Callable[[], Tables],
        tokens: Tokens | None,
        salt_secret: bytes,
        clock: Clock,
        ticks: Callable[[], float],
        entropy: Callable[[int], bytes],
        limits: ShadowLimits | None = None,
    ) -> None:
        self._engines = engines
        self._placement = placement
        self._room = room
        self._log = log
        self._tables = tables
        self._tokens = tokens
        self._salt_secret = salt_secret
        self._clock = clock
        self._ticks = ticks
        self._entropy = entropy
        self._limits = limits or ShadowLimits()
        self._queue: asyncio.Queue[_Copy] = asyncio.Queue(self._limits.waiting)
        self._waiting_bytes = 0
        self._workers: list[asyncio.Task[None]] = []
        self.asked = 0
        """Copies that an engine was asked for."""
        self.dropped = 0
        """Copies for which there was no room, in the queue or in an engine that serves the version (or none
        any more when a request came), and those that were not allowed any more in their turn."""

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def offer(
        self,
        headers: Headers,
        surface: Surface,
        question: Question,
        target: Target,
        primary: Trace,
        said: tuple[str, ...],
        size: int,
        own: Callable[[Any], bool] | None = None,
    ) -> None:
        """After the primary's answer, one copy for each shadow of ``target``; never waits and never raises.

        ``said``: the primary's answer as :func:`said` tells it. ``size``: bytes of the request's body.
        ``own``: of the primary's order.
        """
        for live in target.shadows:
            if self._queue.full() or self._waiting_bytes + size > self._limits.waiting_bytes:
                self.dropped += 1
                continue
            self._waiting_bytes += size
            self._queue.put_nowait(
                _Copy(headers, surface, question, target, live.version, primary, said, size, own)
            )

    async def start(self) -> None:
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._limits.at_once)]

    async def stop(self) -> None:
        for worker in self._workers:
            worker.cancel()
        for worker in self._workers:
            with suppress(asyncio.CancelledError):
                await worker
        self._workers = []
        self.dropped += self._queue.qsize()

    async def _work(self) -> None:
        while True:
            copy = await self._queue.get()
            self._waiting_bytes -= copy.size
            try:
                await self._ask(copy)
            except Exception:  # of one copy; the next one is another's
                _log.exception("shadow of %s: unexpected", copy.primary.id)

    async def _ask(self, copy: _Copy) -> None:
        begun, now = self._ticks(), self._clock.now()
        target, loan = self._allowed(copy, now), Loan()
        place = self._place(target, loan) if target is not None else None
        if target is None or place is None:
            self.dropped += 1
            return
        self.asked += 1
        trace = _trace(copy, target.live, place, f"rec-{self._entropy(16).hex()}", stamp(now))
        try:
            answer = await self._answer(copy, target, place, trace)
        except asyncio.CancelledError:
            if not loan.ended():
                raise
            self.dropped += 1
            return
        except Exception as error:
            refused = problems.public(error)
            trace.status, trace.code = refused.status, refused.code
            if not isinstance(error, RouterError):
                _log.exception("shadow of %s: unexpected", copy.primary.id)
        else:
            trace.status = 200
            # Else no plain digest may be kept, and a copy is given to nobody.
            if trace.retention is None and trace.answer is None:
                trace.answer, trace.answer_of = content_digest(answer), "content"
            trace.agrees = answer == copy.said
        finally:
            self._room.give_back(place, target.route.tenant, target.live.version, loan)
        trace.milliseconds = round((self._ticks() - begun) * 1000)
        with suppress(RouterError):  # the log says itself that it cannot be written
            await durable(self._log.append("outcome", trace))

    def _allowed(self, copy: _Copy, now: datetime) -> Target | None:
        """With the shadow as its live version; None when the tenant, the key, the route or the version is not
        what it was: a copy may have waited for minutes, and nobody misses it."""
        try:
            found = look_again(copy.headers, copy.question, copy.target, self._tables(), now, self._tokens)
        except RouterError:
            return None
        live = next((live for live in found.shadows if live.version == copy.version), None)
        if live is None or found.route != copy.target.route:
            return None
        return found._replace(live=live, shadows=())

    def _place(self, target: Target, loan: Loan) -> Place | None:
        """One with room to spare, already taken; None when all are busy."""
        live, tenant = target.live, target.route.tenant
        tried: list[str] = []
        while (place := self._placement.next(live.places, 0, tried, tenant)) is not None:
            if self._room.lend(place, tenant, live.version, loan):
                return place
            tried.append(place.engine)
        return None

    async def _answer(self, copy: _Copy, target: Target, place: Place, trace: Trace) -> tuple[str, ...]:
        # Its own patience, whatever the engines' port would bear: a copy must not keep a worker for minutes.
        try:
            async with asyncio.timeout(self._limits.seconds):
                with self._placement.visit(place, target.live.version, tenant=target.route.tenant):
                    return await self._forward(copy, target, place, trace)
        except TimeoutError:
            raise EngineTimeout from None

    async def _forward(self, copy: _Copy, target: Target, place: Place, trace: Trace) -> tuple[str, ...]:
        order = copy.surface.order(copy.question, target, self._salt_secret)._replace(own=copy.own)
        answer = await self._engines.ask(address(place.url, copy.surface.upstream), order.body)
        try:
            check_status(answer.status)
            if order.stream:
                streamed = copy.surface.streamed(order, "")
                await _follow(answer, streamed, self._limits.answer_bytes)
                usage, reasons = streamed.usage, list(streamed.finish_reasons)
                answered = tuple(streamed.contents)
            else:
                data = await read_all(answer, self._limits.answer_bytes)
                whole = copy.surface.whole(data, order, "")
                usage, reasons = whole.usage, [choice.finish_reason for choice in whole.choices]
                answered = said(whole)
                if not whole.choices and trace.retention is None:
                    trace.answer, trace.answer_of = Digest.of(whole.body), "body"
                judge(whole, order)
        finally:
            await answer.close()
        trace.finish_reasons = tuple(reasons)
        if usage is not None:
            trace.prompt_tokens, trace.completion_tokens = usage.prompt, usage.completion
        return answered


async def _follow(answer: EngineAnswer, streamed: Streamed, limit: int) -> None:
    """A stream to its end, which nobody is waiting for."""
    reader, size = EventReader(), 0
    while piece := await answer.read():
        size += len(piece)
        if size > limit:
            raise EngineAnswered
        for event in reader.feed(piece):
            if event == b"[DONE]":
                streamed.finish()
                return
            streamed.accept(event)
    streamed.finish()


def _trace(copy: _Copy, live: Live, place: Place, identity: str, started_at: str) -> Trace:
    primary = copy.primary
    return Trace(
        id=identity,
        shadow_of=primary.id,
        tenant=primary.tenant,
        key=primary.key,
        route=primary.route,
        policy=primary.policy,
        model=primary.model,
        adapter=primary.adapter,
        alias=primary.alias,
        epoch=live.epoch,
        version=live.version,
        engine=place.engine,
        boot=place.boot,
        attestation=place.attestation,
        engine_version=place.engine_version,
        request=primary.request,
        retention=primary.retention,
        stream=primary.stream,
        surface=primary.surface,
        started_at=started_at,
    )


def said(whole: Rewritten) -> tuple[str, ...]:
    """Of a whole answer, the text of each choice and the tools that it calls: what two answers agree in.

    Of one that has no choices (embeddings), the digest of its bytes: they name nothing of one answer alone.
    """
    if not whole.choices:
        return (Digest.of(whole.body),)
    return tuple(
        "\0".join((choice.content or "", *(f"{call.name}\0{call.arguments}" for call in choice.tool_calls)))
        for choice in whole.choices
    )
