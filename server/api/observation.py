"""Alive, ready, and how fast: for probes and Prometheus, without a credential."""

import time

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.control import Control

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FLEET = {
    "engines_expected": "Engines that discovery lists",
    "engines_missing": "Engines that discovery lists and that are not up",
    "engines_missing_seconds": "How long the longest missing one is",
    "engines_doubted": "Engines that are up and not listed so",
    "discovery_age_seconds": "Since the last word of the source that was silent longest",
}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Timed:
    """Seconds of every request by method, route template and class of status: labels nobody can invent."""

    def __init__(self, app: ASGIApp, histogram: Histogram) -> None:
        self._app = app
        self._histogram = histogram

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._histogram.labels(method, route, f"{status // 100}xx").observe(time.perf_counter() - started)


def install(app: FastAPI, control: Control) -> None:
    metrics = CollectorRegistry()
    size = Gauge("tenon_log_size", "Entries in the log", registry=metrics)
    fleet = {
        name: Gauge(f"tenon_{name}", said, registry=metrics)
        for name, said in _FLEET.items()
        if control.expected.watching
    }
    seconds = Histogram(
        "tenon_control_request_seconds",
        "Time of a request to the control API",
        ("method", "route", "status"),
        buckets=_BUCKETS,
        registry=metrics,
    )
    app.add_middleware(Timed, histogram=seconds)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> Response:
        return JSONResponse({"status": "ready", "log": control.catalog.position().size})

    @app.get("/metrics", include_in_schema=False)
    def scrape() -> Response:
        size.set(control.catalog.position().size)
        for name, figure in control.expected.figures().items() if fleet else ():
            fleet[name].set(figure)
        return Response(generate_latest(metrics), media_type="text/plain; version=0.0.4")
