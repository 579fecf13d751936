"""Prometheus metrics of one router, in a registry of its own.

Names of tenants appear only when asked for: whoever can read ``/metrics`` would learn who else is served.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from router.moments import Moments
from router.records.record import Trace

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_MOST_NAMES = 1000
"""(tenant, model) pairs with series of their own; further ones share ``other``."""


class Metrics:
    def __init__(self, *, name_tenants: bool) -> None:
        self._name_tenants = name_tenants
        self._names: set[tuple[str, str]] = set()
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tenon_requests",
            "Finished completion requests; code is 'ok' or the error code",
            ("tenant", "model", "code"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "tenon_request_seconds",
            "From headers to the last byte, record included",
            ("stream",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "tenon_tokens",
            "Tokens as engines counted them",
            ("tenant", "model", "kind"),
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "tenon_engine_requests_in_flight", "Leases per engine", ("engine",), registry=self._registry
        )

    def watch(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is scraped."""
        Gauge(name, meaning, registry=self._registry).set_function(read)

    def finished(self, trace: Trace, moments: Moments) -> None:
        tenant, model = self._labels(trace)
        self._requests.labels(tenant, model, trace.code or "ok").inc()
        self._seconds.labels(str(trace.stream).lower()).observe(trace.milliseconds / 1000)
        for kind, count in (("prompt", trace.prompt_tokens), ("completion", trace.completion_tokens)):
            if count:
                self._tokens.labels(tenant, model, kind).inc(count)

    def render(self, in_flight: dict[str, int]) -> bytes:
        self._in_flight.clear()  # engines that left must not stay as series for ever
        for engine, count in in_flight.items():
            self._in_flight.labels(engine).set(count)
        return generate_latest(self._registry)

    def _labels(self, trace: Trace) -> tuple[str, str]:
        if not self._name_tenants or trace.tenant is None:
            return "", ""
        names = (trace.tenant, trace.model or "")
        if names not in self._names:
            if len(self._names) >= _MOST_NAMES:
                return "other", "other"
            self._names.add(names)
        return names
