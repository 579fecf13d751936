"""The agent's figures for Prometheus, in a registry of their own."""

from dataclasses import asdict

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from server.engines.state import AgentState, Event


class AgentMetrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._up = Gauge("tenon_engine_up", "Whether the engine answers", registry=self._registry)
        self._ready = Gauge(
            "tenon_engine_ready", "Whether all that should be served is attested", registry=self._registry
        )
        self._adapters = Gauge(
            "tenon_engine_adapters", "Versions by state on this engine", ["state"], registry=self._registry
        )
        self._distance = Gauge(
            "tenon_engine_attest_distance",
            "Mean absolute log-probability difference to the version's own fingerprint, last probe",
            ["version"],
            registry=self._registry,
        )
        self._age = Gauge(
            "tenon_engine_attest_age_seconds",
            "Since the last probe of the version in service that waited longest for one (0: none in service)",
            registry=self._registry,
        )
        self._events = Counter(
            "tenon_engine_events", "What happened, by kind (failed: attestation or contract)", ["kind"],
            registry=self._registry,
        )  # fmt: skip
        self._restarts = Counter(
            "tenon_engine_restarts", "Starts of vLLM after the first", registry=self._registry
        )
        self._guard = Gauge(
            "tenon_engine_guard",
            "What the guard inside vLLM has counted in this boot",
            ["counted"],
            registry=self._registry,
        )
        self._starts = 0

    def count(self, event: Event) -> None:
        self._events.labels(event.kind).inc()
        if event.kind == "starting":
            self._starts += 1
            if self._starts > 1:
                self._restarts.inc()

    def render(self, state: AgentState) -> bytes:
        """The text exposition format."""
        self._up.set(state.up)
        self._ready.set(state.is_ready)
        self._adapters.labels("ready").set(len(state.ready))
        self._adapters.labels("not_ready").set(len(state.not_ready))
        self._adapters.labels("retired").set(len(state.retired))
        self._distance.clear()
        for version, finding in state.ready.items():
            self._distance.labels(version).set(finding.own_distance)
        self._age.set(state.attest_age)
        self._guard.clear()
        for name, count in (asdict(state.guard) if state.guard else {}).items():
            self._guard.labels(name).set(count)
        return generate_latest(self._registry)
