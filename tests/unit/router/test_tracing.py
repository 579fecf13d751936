"""Spans of finished requests: what they say, whose parent they have, and what never stands in them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from router import tracing
from router.moments import Moments
from router.records.record import Trace
from router.testing import FakeAnswer, stream
from router.tracing import Tracing
from server.assembly.tracing import otlp
from tests.unit.router.driving import House

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "spy=1", "baggage": "who=me"}


@asynccontextmanager
async def traced(folder: Path, **settings: Any) -> AsyncIterator[tuple[House, InMemorySpanExporter, str]]:
    """A house with traces; the spans are there once this is left."""
    exporter = InMemorySpanExporter()
    house = House(folder, spans=Tracing(exporter, nanoseconds=lambda: 10**18, **settings))
    house.scene.engine()
    bank = house.scene.serve("bank_a")
    await house.app.start()
    try:
        await house.publish()
        yield house, exporter, bank
    finally:
        await house.app.stop()


def pair(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, ReadableSpan]:
    """(the request, the asking of the engine)."""
    engine, request = exporter.get_finished_spans()
    return request, engine


async def test_a_request_and_its_engine_are_two_spans(tmp_path: Path) -> None:
    async with traced(tmp_path) as (house, exporter, bank):

        def slow(body: dict[str, Any]) -> FakeAnswer:
            house.now += 0.5
            return FakeAnswer(200, stream(body, "abcd"))

        house.engines.script = slow
        response = await house.ask(bank, {"stream": True}, headers=SENT)
        (asked,) = house.engines.asked
        (version,) = house.app.feed.tables().state.versions
    request, engine = pair(exporter)
    assert request.context is not None
    assert engine.context is not None
    assert request.parent is not None
    assert engine.parent is not None
    assert f"{request.context.trace_id:032x}" == TRACE
    assert (f"{request.parent.span_id:016x}", request.parent.is_remote) == (SPAN, True)
    assert engine.parent.span_id == request.context.span_id
    assert asked.traceparent == f"00-{TRACE}-{engine.context.span_id:016x}-01".encode()
    assert (request.kind, engine.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert (request.name, engine.name) == ("POST /v1/chat/completions", "chat assistant")
    assert request.attributes is not None
    assert engine.attributes is not None
    assert request.attributes["tenon.record"] == response.record
    assert request.attributes["tenon.tenant"] == "bank_a"
    assert request.attributes["http.route"] == "/v1/chat/completions"
    assert request.attributes["http.response.status_code"] == 200
    assert dict(engine.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "assistant",
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "engine-0",
        "tenon.engine": "engine-0",
        "tenon.retries": 0,
        "tenon.version": str(version),
    }
    assert (engine.start_time, engine.end_time) == (10**18 - 5 * 10**8, 10**18)
    assert request.start_time == engine.start_time


async def test_no_word_of_prompt_answer_or_header_is_in_a_span(tmp_path: Path) -> None:
    async with traced(tmp_path) as (house, exporter, bank):
        house.engines.script = lambda body: FakeAnswer(200, stream(body, "okapi"))
        asking = {"messages": [{"role": "user", "content": "zebra"}], "stream": True}
        await house.ask(bank, asking, headers=SENT)
        await house.ask(bank, asking | {"model": "gnu"}, headers=SENT)
        await house.ask("tn_lynx", asking, headers=SENT)
    said = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "model_not_found" in said
    for word in ("okapi", "zebra", "gnu", "lynx", "spy", "who=me", bank):
        assert word not in said


async def test_refusals_are_spans_without_an_engine(tmp_path: Path) -> None:
    async with traced(tmp_path) as (house, exporter, bank):
        await house.ask(None)
        house.engines.down.add("http://")
        await house.ask(bank)
    alone, *tried = exporter.get_finished_spans()
    assert alone.attributes is not None
    assert alone.attributes["error.type"] == "missing_api_key"
    assert alone.status.status_code is StatusCode.UNSET  # a client's fault is no server's error
    assert alone.parent is None
    for span in tried:
        assert span.attributes is not None
        assert span.attributes["error.type"] == "engine_unavailable"
        assert span.status.status_code is StatusCode.ERROR


async def test_what_is_not_sampled_costs_no_span_and_tells_the_engine_nothing(tmp_path: Path) -> None:
    async with traced(tmp_path, ratio=0.5) as (house, exporter, bank):
        for trace in ("f" * 32, "e" * 32):
            await house.ask(bank, headers={"traceparent": f"00-{trace}-{SPAN}-01"})
        await house.ask(bank, headers={"traceparent": f"00-{TRACE[:16]}{'0' * 15}1-{SPAN}-00"})
    assert not exporter.get_finished_spans()
    assert {asked.traceparent for asked in house.engines.asked} == {b""}


async def test_without_tracing_the_header_goes_nowhere(house: House, bank: str) -> None:
    await house.ask(bank, headers=SENT)
    assert [asked.traceparent for asked in house.engines.asked] == [b""]


class Slow(SpanExporter):
    """A collector that takes nothing until it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.let.wait(30)
        self.spans += len(spans)
        return SpanExportResult.SUCCESS


def test_a_collector_that_hangs_costs_spans_and_no_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "_MOST_WAITING", 600)
    collector = Slow()
    spans = Tracing(collector)
    moments = Moments(1.0, asked=1.5, ended=2.0, url="http://e", context=spans.begin([]))
    for _ in range(1000):
        spans.finished(Trace(id="r"), moments)
    assert spans.dropped == 1400
    collector.let.set()
    spans.close()
    assert collector.spans == 600
    assert not caplog.records  # not a line for each


@pytest.mark.parametrize("ratio", [0, -1, 1.1])
def test_a_share_that_makes_no_sense_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        Tracing(InMemorySpanExporter(), ratio=ratio)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A real OTLP/HTTP receiver: its URL, and what arrived."""
    arrived: list[ExportTraceServiceRequest] = []

    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["content-type"] == "application/x-protobuf"
            body = self.rfile.read(int(self.headers["content-length"]))
            arrived.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Receive) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", arrived
        finally:
            server.shutdown()
            thread.join()


async def test_spans_arrive_at_a_collector(
    tmp_path: Path, collector: tuple[str, list[ExportTraceServiceRequest]]
) -> None:
    url, arrived = collector
    house = House(tmp_path, spans=otlp(url, ratio=1.0, writer="router-7"))
    house.scene.engine()
    bank = house.scene.serve("bank_a")
    await house.app.start()
    await house.publish()
    await asyncio.gather(*(house.ask(bank) for _ in range(20)))
    await house.app.stop()
    found = [
        (span, {each.key: each.value.string_value for each in resource.resource.attributes})
        for request in arrived
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert len(found) == 40
    assert {about["service.name"] for _, about in found} == {"tenon-router"}
    assert {about["service.instance.id"] for _, about in found} == {"router-7"}
    assert {span.name for span, _ in found} == {"POST /v1/chat/completions", "chat assistant"}
    assert len({span.span_id for span, _ in found}) == 40
    assert len({span.trace_id for span, _ in found}) == 20
