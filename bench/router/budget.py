"""Where a request's microseconds go: each step of the pipeline alone, on the bench's own request.

The steps run as the pipeline calls them, on real tables, policies and documents. What remains of the router's
CPU time per request (measured from outside, under load) is the server's and the loop's: sockets, HTTP, tasks.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from bench.router import running, stub, world
from registry.clock import SystemClock
from registry.digests import Digest
from router import validation
from router.admission import cost
from router.asked import Asked
from router.auth import authenticate
from router.exchange import Exchange
from router.headers import Headers
from router.moments import Moments
from router.records.record import Trace
from router.resolution import choose, resolve, unit_of
from router.surfaces.chat.surface import Chat
from router.surfaces.events import EventReader

_ROUNDS, _REPEATS = 2000, 7


def measure() -> dict[str, float]:
    """Step -> microseconds a request: of seven runs the fastest, as timeit's documentation advises."""
    with tempfile.TemporaryDirectory(prefix="tenon-bench-") as folder:
        return uvloop.run(_measure(Path(folder)))


async def _measure(folder: Path) -> dict[str, float]:
    app = world.app(folder, "http://127.0.0.1:1")
    await app.start()
    try:
        while app.feed.latest is None:  # noqa: ASYNC110 (the feed has no event for it)
            await asyncio.sleep(0.01)
        return _steps(app)
    finally:
        await app.stop()


def _steps(app: Any) -> dict[str, float]:
    pipeline, surface, clock = app._pipeline, Chat(), SystemClock()
    asked = running.routed(running.Process(0, 1))
    body = asked.wholes[0].body
    raw = [(name.lower().encode(), value.encode()) for name, value in asked.wholes[0].headers.items()]
    raw += [(b"host", b"127.0.0.1:8080"), (b"content-length", b"%d" % len(body))]
    scope: dict[str, Any] = {"headers": raw}
    tables, now = app.feed.tables(), clock.now()
    headers = Headers(raw)
    principal = authenticate(headers, tables, now)
    question = surface.parse(body, pipeline.limits)
    chosen = choose(principal, question.model, headers, tables)
    target = resolve(chosen, tables, unit=unit_of(principal, headers, None), now=now)
    order = surface.order(question, target, pipeline.salt_secret)
    place, name = target.live.places[0], order.engine_name.encode()
    whole = stub._WHOLE.replace(stub._PLACE, name)
    pieces = [piece.replace(stub._PLACE, name) for piece in stub._PIECES]
    rewritten = surface.whole(whole, order, "chatcmpl-" + "0" * 32)
    trace = Trace(id="rec-" + "0" * 32)
    under_way = Asked(Exchange(scope, _nothing, _nothing), surface, trace, Moments(0.0))
    under_way.note_caller(principal)
    under_way.note_body(body)
    under_way.note_route(question, chosen)
    under_way.target = target
    under_way.note_place(place)
    under_way.note_usage(rewritten.usage)

    def start() -> None:
        Asked(
            Exchange(scope, _nothing, _nothing),
            surface,
            Trace(id=f"rec-{pipeline.entropy(16).hex()}"),
            Moments(pipeline.ticks(), surface="chat", path=surface.path),
        )
        app.feed.tables()
        clock.now()

    def resolved() -> None:
        route = choose(principal, "assistant", headers, tables)
        resolve(route, tables, unit=unit_of(principal, headers, None), now=now)

    def admit() -> None:
        pipeline.admission.admit(principal, tables, *cost(body, question, order)).settle(None)

    def line() -> None:
        trace.line("outcome", writer="router-0", seq=1, prev=_PREV, at=_AT)

    def place_and_lease() -> None:
        found = pipeline.attempts.placement.next(target.live.places, 0, [])
        with pipeline.attempts.placement.visit(found, target.live.version):
            pass

    def streamed() -> None:
        reader, answer = EventReader(), surface.streamed(order, "chatcmpl-" + "0" * 32)
        for piece in pieces:
            for event in reader.feed(piece):
                if event != b"[DONE]":
                    answer.accept(event)
        answer.finish()

    def validate() -> None:
        for choice in rewritten.choices:
            validation.check(order.policy, choice.content, choice.finish_reason)

    steps: dict[str, Callable[[], object]] = {
        "start": start,
        "authenticate": lambda: authenticate(headers, tables, now),
        "hash the request": lambda: Digest.of(body),
        "parse": lambda: surface.parse(body, pipeline.limits),
        "resolve": resolved,
        "constrain": lambda: surface.order(question, target, pipeline.salt_secret),
        "admit": admit,
        "place and lease": place_and_lease,
        "rewrite": lambda: surface.whole(whole, order, "chatcmpl-" + "0" * 32),
        "validate": validate,
        "hash the answer": lambda: Digest.of(rewritten.body),
        "write the record's line": line,
        "headers of the response": under_way.headers,
        "metrics": lambda: pipeline.finished(trace, under_way.moments),
    }
    found = {step: _time(call) for step, call in steps.items()}
    found["a stream's 34 events"] = _time(streamed, rounds=100)
    return found


_PREV, _AT = Digest.of(b""), "2026-01-01T00:00:00.000000Z"


async def _nothing(*_: Any) -> Any:
    return None


def _time(call: Callable[[], object], rounds: int = _ROUNDS) -> float:
    best = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        for _ in range(rounds):
            call()
        best.append((time.perf_counter() - began) / rounds * 1e6)
    return min(best)
