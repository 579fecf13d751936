"""The control API: one router a noun, mounted under ``/api/v1``."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from server.api import (
    adapters,
    aliases,
    bases,
    blobs,
    counters,
    engines,
    feed,
    keys,
    log,
    observation,
    openapi,
    policies,
    problems,
    proposals,
    records,
    references,
    reports,
    routing,
    signers,
    tenants,
    uploads,
    usage,
    versions,
    whoami,
)
from server.api.access import public
from server.api.control import Control
from server.api.guarded import Guarded, router

PREFIX = "/api/v1"
_NOUNS = {
    "callers": whoami,
    "tenants": tenants,
    "keys": keys,
    "signers": signers,
    "bases": bases,
    "adapters": adapters,
    "versions": versions,
    "reports": reports,
    "references": references,
    "aliases": aliases,
    "proposals": proposals,
    "routing": routing,
    "policies": policies,
    "blobs": blobs,
    "uploads": uploads,
    "usage": usage,
    "counters": counters,
    "records": records,
    "log": log,
    "feed": feed,
    "engines": engines,
}
"""Tag -> module."""


def create_app(control: Control) -> FastAPI:
    """For people (keys, OIDC) and for Tenon's own processes (the service token)."""
    app = FastAPI(
        title="Tenon control plane",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    observation.install(app, control)
    for tag, noun in _NOUNS.items():
        app.include_router(noun.routes(control), prefix=PREFIX, tags=[tag])
    openapi.install(app)
    about = router()

    @about.get("/openapi.json", dependencies=[public(control)], include_in_schema=False)
    def read_description() -> JSONResponse:
        return JSONResponse(app.openapi())

    app.include_router(about, prefix=PREFIX)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path.startswith(PREFIX) and not isinstance(route, Guarded):
            raise TypeError(f"{route.path} says nowhere who may use it: use guarded.router()")
    return app
