"""OpenTelemetry spans of finished requests, with the GenAI semantic conventions.

They are made after the answer, from moments already noted, and exported by the SDK's batch processor in a
thread of its own. No attribute holds a word of a prompt or an answer. Imported only where traces are on.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from router import traceparent
from router.moments import Moments
from router.records.record import Trace
from router.traceparent import Context

_MOST_WAITING = 4096
"""Spans that wait for the collector; further ones are dropped and counted."""
_SCOPE = InstrumentationScope("tenon.router")
_OPERATIONS = {"completions": "text_completion", "embeddings": "embeddings"}
"""Surface -> gen_ai.operation.name; every other surface is a chat."""
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
Attribute = str | bool | int | float | Sequence[str]


class Tracing:
    def __init__(
        self,
        exporter: SpanExporter,
        *,
        ratio: float = 1.0,
        writer: str = "router",
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        nanoseconds: Callable[[], int] = time.time_ns,
    ) -> None:
        """``ratio``: the share of traces that is kept; ``writer`` tells routers apart."""
        if not 0 < ratio <= 1:
            raise ValueError("ratio must be above 0 and at most 1")
        self._exporter = _Counted(exporter)
        self._processor = BatchSpanProcessor(self._exporter, max_queue_size=2 * _MOST_WAITING)
        self._ratio, self._entropy, self._nanoseconds = ratio, entropy, nanoseconds
        self._resource = Resource.create({"service.name": "tenon-router", "service.instance.id": writer})
        self._given = 0
        self.dropped = 0
        """Spans that were never sent, because the collector was too slow."""

    def begin(self, sent: Sequence[str]) -> Context | None:
        """``sent``: values of the header ``traceparent``. None for a request that is not traced."""
        return traceparent.begin(traceparent.read(sent), self._ratio, self._entropy)

    def finished(self, trace: Trace, moments: Moments) -> None:
        context = moments.context
        if context is None:
            return
        if self._given - self._exporter.taken >= _MOST_WAITING:
            self.dropped += 2 if moments.asked else 1
            return
        # Ticks have no date; the date of the end has, and the distance to it.
        end = self._nanoseconds()
        if moments.asked:
            self._give(self._engine_span(context, trace, moments, end))
        self._give(self._request_span(context, trace, moments, end))

    def close(self) -> None:
        """Send what waits. Blocks until the collector took it or the exporter gave up."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _request_span(self, context: Context, trace: Trace, moments: Moments, end: int) -> ReadableSpan:
        attributes: dict[str, Attribute] = {"http.request.method": "POST"}
        if not trace.counted:
            attributes["tenon.record"] = trace.id
        if moments.path:
            attributes["http.route"] = moments.path
        if trace.status is not None:
            attributes["http.response.status_code"] = trace.status
        for name, value in (
            ("tenon.tenant", trace.tenant), ("tenon.route", trace.route), ("tenon.policy", trace.policy),
            ("tenon.adapter", trace.adapter), ("tenon.alias", trace.alias), ("tenon.canary", trace.canary),
        ):  # fmt: skip
            if value is not None:
                attributes[name] = value
        return self._span(
            f"POST {moments.path}" if moments.path else "POST",
            _known(context.trace, context.span),
            _known(context.trace, context.parent, remote=True) if context.parent is not None else None,
            SpanKind.SERVER,
            attributes,
            trace.code,
            (_at(end, moments, moments.begun), end),
            # HTTP conventions: what is the client's own fault is no error of a server's span.
            failed=trace.status is None or trace.status >= 500,
        )

    def _engine_span(self, context: Context, trace: Trace, moments: Moments, end: int) -> ReadableSpan:
        operation = _OPERATIONS.get(moments.surface, "chat")
        home = urlsplit(moments.url)
        attributes: dict[str, Attribute] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": trace.model or "",
            "gen_ai.request.stream": trace.stream,
            "server.address": home.hostname or "",
            "tenon.retries": moments.retries,
        }
        for name, value in (
            ("server.port", home.port), ("tenon.engine", trace.engine), ("tenon.version", trace.version),
            ("gen_ai.usage.input_tokens", trace.prompt_tokens),
            ("gen_ai.usage.output_tokens", trace.completion_tokens),
        ):  # fmt: skip
            if value is not None:
                attributes[name] = value
        if trace.finish_reasons:
            attributes["gen_ai.response.finish_reasons"] = trace.finish_reasons
        if trace.stream and moments.first:
            attributes["gen_ai.response.time_to_first_chunk"] = moments.first - moments.asked
        return self._span(
            f"{operation} {trace.model}",
            _known(context.trace, context.child),
            _known(context.trace, context.span),
            SpanKind.CLIENT,
            attributes,
            trace.code,
            (_at(end, moments, moments.asked), _at(end, moments, moments.last or moments.ended)),
            failed=trace.code is not None,
        )

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, Attribute],
        code: str | None,
        times: tuple[int, int],
        *,
        failed: bool,
    ) -> ReadableSpan:
        if code is not None:
            attributes["error.type"] = code
        return ReadableSpan(
            name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=_ERROR if failed else _UNSET,
            start_time=times[0],
            end_time=times[1],
            instrumentation_scope=_SCOPE,
        )

    def _give(self, span: ReadableSpan) -> None:
        self._given += 1
        self._processor.on_end(span)


class _Counted(SpanExporter):
    """Counts what was taken: the SDK's own queue drops in silence, and logs a line for each."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            return self._exporter.export(spans)
        finally:
            self.taken += len(spans)

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _known(trace: str, span: str, *, remote: bool = False) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), is_remote=remote, trace_flags=_SAMPLED)


def _at(end: int, moments: Moments, tick: float) -> int:
    return end - max(0, int((moments.ended - tick) * 1e9))
