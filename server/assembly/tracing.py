"""Traces to an OTLP/HTTP collector."""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from router.tracing import Tracing

_SECONDS = 5.0
"""For one batch, retries included: at a stop the last one is waited for."""


def otlp(url: str, *, ratio: float, writer: str) -> Tracing:
    """``url``: the whole one, such as ``http://collector:4318/v1/traces``."""
    return Tracing(OTLPSpanExporter(endpoint=url, timeout=_SECONDS), ratio=ratio, writer=writer)
