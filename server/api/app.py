"""The control plane's routes, thin: parse, call the catalog, answer canonical documents."""

import asyncio
import hmac
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from starlette.concurrency import run_in_threadpool

from registry.catalog.local import LocalCatalog
from registry.digests import Digest
from registry.errors import BlobNotFound, InvalidDocument
from registry.models import EngineState
from registry.ports import Blobs
from registry.signing.envelope import Envelope
from server.api import problems
from server.errors import ServiceTokenInvalid

JSON = "application/json"
_POLL = 0.1
"""Seconds between looks at the log while a reader waits: others write it too, and SQLite cannot notify."""
_MAX_DOCUMENT = 1 << 20


def create_app(*, catalog: LocalCatalog, blobs: Blobs, token: str) -> FastAPI:
    """The control API for Tenon's own processes; all of ``/api`` needs the service token."""
    app = FastAPI(title="Tenon control plane", version="1", docs_url=None, redoc_url=None)
    problems.install(app)
    metrics = CollectorRegistry()
    size = Gauge("tenon_log_size", "Entries in the log", registry=metrics)
    reads = Counter("tenon_feed_reads_total", "Snapshots handed out", registry=metrics)

    def authorised(authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise ServiceTokenInvalid("this endpoint is for Tenon's own processes")

    guarded = [Depends(authorised)]

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> dict[str, object]:
        return {"status": "ready", "log": catalog.snapshot().size}

    @app.get("/metrics")
    def scrape() -> Response:
        size.set(catalog.snapshot().size)
        return Response(generate_latest(metrics), media_type="text/plain; version=0.0.4")

    @app.get("/api/v1/feed", dependencies=guarded)
    async def feed(
        request: Request,
        after: Annotated[int, Query(ge=-1)] = -1,
        wait: Annotated[float, Query(ge=0, le=30)] = 0,
    ) -> Response:
        """The newest snapshot if the log is longer than ``after``; else 204 after ``wait`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while (snapshot := await run_in_threadpool(catalog.feed, after)) is None:
            if loop.time() >= deadline or await request.is_disconnected():
                return Response(status_code=204)
            await asyncio.sleep(_POLL)
        reads.inc()
        return Response(snapshot.canonical(), media_type=JSON)

    @app.get("/api/v1/versions/{version}/manifest", dependencies=guarded)
    def manifest(version: str) -> Response:
        return Response(catalog.manifest(Digest(version)).canonical(), media_type=JSON)

    @app.get("/api/v1/bases/{ref}", dependencies=guarded)
    def base(ref: str) -> Response:
        _, document, _ = catalog.base(ref)
        return Response(document.canonical(), media_type=JSON)

    @app.get("/api/v1/blobs/{digest}", dependencies=guarded)
    def blob(digest: str) -> Response:
        """Checked before the first byte leaves: a reader never sees bytes that are not the digest's."""
        wanted = Digest(digest)
        if not blobs.has(wanted):
            raise BlobNotFound(f"no blob {wanted.short}")
        return Response(blobs.read(wanted), media_type="application/octet-stream")

    @app.put("/api/v1/engines/{engine}", dependencies=guarded)
    async def announce(engine: str, request: Request) -> Response:
        state = EngineState.parse(await _body(request))
        if state.engine != engine:
            raise InvalidDocument("the engine in the path and in the body differ")
        await run_in_threadpool(catalog.announce, state, actor=f"engine:{engine}")
        return Response(status_code=204)

    @app.post("/api/v1/attestations", dependencies=guarded)
    async def attest(request: Request) -> dict[str, str]:
        envelope = Envelope.parse(await _body(request))
        return {"attestation": await run_in_threadpool(catalog.attest, envelope, actor="engine")}

    @app.post("/api/v1/record-heads", dependencies=guarded)
    async def record_head(request: Request) -> Response:
        envelope = Envelope.parse(await _body(request))
        await run_in_threadpool(catalog.record_head, envelope, actor="router")
        return Response(status_code=204)

    return app


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_DOCUMENT:
            raise InvalidDocument("the document is larger than 1 MiB")
    return body
