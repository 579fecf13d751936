"""One request under way: what the pipeline's steps hand to each other, and what its record will say."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from registry import canonical
from registry.digests import Digest
from registry.models import Route
from router.admission import FREE, Ticket, most
from router.epochs import HEADER, epoch_of
from router.errors import EngineRejectedRequest, RouterError
from router.exchange import Exchange, RawHeaders
from router.metering import Usage
from router.moments import Moments
from router.places import Place
from router.records.record import Trace, content_digest
from router.resolution import Target
from router.retention import Kept
from router.shadowing import said
from router.surfaces.surface import Order, Question, Rewritten, Streamed, Surface
from router.tables import Principal


@dataclass(slots=True)
class Asked:
    exchange: Exchange
    surface: Surface
    trace: Trace
    moments: Moments
    ticket: Ticket = FREE
    work: "asyncio.Task[Any] | None" = None
    """Its task, from when an engine is asked."""
    sent: bool = False
    """Whether an engine may have begun to work on it."""
    recorded: bool = False
    ruled: bool = False
    """Whether the policy of the request is known."""
    admitted: bool = False
    kept: Kept | None = None
    """None: plain digests."""
    streamed: Streamed | None = None
    whole: Rewritten | None = None
    question: Question = field(init=False)
    began: int = 0
    """The epoch that its conversation is in; 0: none that counts."""
    conversation: str = ""
    """What the client calls it; empty when it names none."""
    target: Target = field(init=False)
    """Of the newest look at the rules, and the order made of it."""
    order: Order = field(init=False)
    repeats: int = 0
    """Answers that did not satisfy the policy and were asked for again."""
    arrived: int = 0
    """Events of the present stream. Each is a token at least, also where nothing of it goes to the client:
    thoughts, and the text of a call that is not complete."""
    uncounted: int = 0
    """Tokens, at most, of the streams among these: no engine told them; and how many such streams."""
    streams_uncounted: int = 0
    died_whole: int = 0
    """Whole answers that died with their engine: it begins to send one when the last token is made."""
    died_streams: int = 0
    died_tokens: int = 0
    """Of such streams, at most. What died counts in budgets, not in usage: nobody had it."""

    @property
    def traceparent(self) -> bytes:
        return self.moments.context.header if self.moments.context is not None else b""

    @property
    def answer_id(self) -> str:
        return self.surface.prefix + self.trace.id[4:]

    @property
    def said(self) -> tuple[str, ...]:
        """The answer, for comparing it with a shadow's."""
        if self.whole is not None:
            return said(self.whole)
        return tuple(self.streamed.contents) if self.streamed is not None else ()

    def headers(self, error: RouterError | None = None) -> RawHeaders:
        trace = self.trace
        record = trace.id.encode("ascii")
        found: RawHeaders = [(b"x-request-id", record)]
        if not trace.counted:
            found.append((b"x-tenon-record", record))
        if self.ticket is not FREE:
            found += self.ticket.headers()
        if error is None:
            if trace.version is not None and trace.engine is not None:
                found.append((b"x-tenon-version", trace.version.encode("ascii")))
                found.append((b"x-tenon-engine", trace.engine.encode("ascii")))
                if self.conversation:
                    found.append((HEADER, b"%d" % epoch_of(self.target)))
            return found
        if error.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        found += error.headers
        return found

    def settle(self) -> None:
        """Of what was reserved, count what was used (see ``Ticket.settle``). Once is enough."""
        if self.ticket is FREE:
            return
        trace = self.trace
        if not self.sent:
            self.ticket.forget()
        elif trace.prompt_tokens is not None:
            prompt, completion = trace.prompt_tokens, trace.completion_tokens or 0
            lost, told = self.streams_uncounted, self.repeats + 1 - self.streams_uncounted
            died = self.died_tokens
            if (
                self.died_whole or self.died_streams
            ):  # the question was the same, a whole answer about as long
                died += (self.died_whole + self.died_streams) * prompt // told
                died += self.died_whole * completion // told
            used = Usage(prompt + lost * prompt // told, completion + self.uncounted)
            self.ticket.settle(used, died=died)
        elif trace.code == EngineRejectedRequest.code and not self.repeats:
            self.ticket.settle(Usage(0, 0))
        elif self.streamed is not None:
            usage = self.streamed.usage if not self.streams_uncounted else None
            size = max(self.arrived, _size(self.streamed.contents_before_end))
            self.ticket.settle(usage, self.uncounted + self.died_tokens + size, died=self.died_tokens)
        elif self.streams_uncounted:
            self.ticket.settle(None, self.uncounted + self.died_tokens)
        else:
            self.ticket.settle(None)

    def discard(self) -> None:
        """The answer does not satisfy the policy, and another one is asked for."""
        streamed, self.streamed = self.streamed, None
        if streamed is None:
            return  # what its engine counted was noted
        if streamed.usage is not None:
            self.note_usage(streamed.usage)
        else:
            self.uncounted += self._made(streamed)
            self.streams_uncounted += 1

    def lose(self) -> None:
        """The engine died under its answer, and another one is asked."""
        streamed, self.streamed = self.streamed, None
        if streamed is None:
            self.died_whole += 1
        elif streamed.usage is not None:
            self.died_tokens += sum(streamed.usage)
        else:
            self.died_streams += 1
            self.died_tokens += self._made(streamed)

    def _made(self, streamed: Streamed) -> int:
        """Tokens of a stream that ended before its engine told them, at most."""
        return min(max(self.arrived, _size(streamed.contents)), most(self.question, self.order))

    def stop_clock(self, now: float) -> None:
        self.trace.milliseconds = round((now - self.moments.begun) * 1000)

    def note_caller(self, principal: Principal) -> None:
        self.trace.tenant, self.trace.key = principal.tenant, principal.key

    def note_body(self, body: bytes) -> None:
        self.trace.request = Digest.of(body)

    def note_kept(self, kept: Kept, body: bytes) -> None:
        self.kept = kept
        self.trace.request = kept.of_question(body)

    def note_answer(self, body: bytes) -> None:
        """Exactly the bytes of the response."""
        kept, trace = self.kept, self.trace
        trace.answer = Digest.of(body) if kept is None else kept.of_answer(body)
        trace.answer_of = "body" if trace.answer is not None else None

    def note_contents(self, contents: Sequence[str]) -> None:
        """What was streamed."""
        kept, trace = self.kept, self.trace
        if kept is None:
            trace.answer = content_digest(contents)
        else:
            trace.answer = kept.of_answer(canonical.encode(list(contents)))
        trace.answer_of = "content" if trace.answer is not None else None

    def note_route(self, question: Question, route: Route) -> None:
        trace = self.trace
        trace.route, trace.policy, trace.model = route.name, route.policy, route.model
        trace.adapter, trace.alias, trace.stream = route.adapter, route.alias, question.stream

    def note_live(self) -> None:
        """Not once an engine was asked: what a record says of engine and version belongs together."""
        trace, live = self.trace, self.target.live
        if trace.engine is None:
            trace.version, trace.epoch, trace.canary = live.version, live.epoch, live.canary

    def note_place(self, place: Place) -> None:
        trace = self.trace
        trace.engine = None
        self.note_live()
        trace.engine, trace.boot, trace.attestation = place.engine, place.boot, place.attestation
        trace.engine_version = place.engine_version

    def note_usage(self, usage: Usage | None) -> None:
        """What the engines counted, of all answers that this request took."""
        if usage is not None:
            self.trace.prompt_tokens = (self.trace.prompt_tokens or 0) + usage.prompt
            self.trace.completion_tokens = (self.trace.completion_tokens or 0) + usage.completion


def _size(texts: Sequence[str]) -> int:
    """Bytes: no text has more tokens."""
    return sum([len(text.encode("utf-8", "surrogatepass")) for text in texts])
