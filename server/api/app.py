"""The control API: one router a noun, mounted under ``/api/v1``."""

from fastapi import FastAPI
from fastapi.routing import APIRoute

from server.api import bases, blobs, engines, feed, observation, problems, versions, whoami
from server.api.control import Control
from server.api.guarded import Guarded

PREFIX = "/api/v1"
_NOUNS = (whoami, bases, versions, blobs, feed, engines)


def create_app(control: Control) -> FastAPI:
    """For people (keys, OIDC) and for Tenon's own processes (the service token)."""
    app = FastAPI(title="Tenon control plane", version="1", docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app)
    observation.install(app, control)
    for noun in _NOUNS:
        app.include_router(noun.routes(control), prefix=PREFIX)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path.startswith(PREFIX) and not isinstance(route, Guarded):
            raise TypeError(
                f"{route.path} says nowhere who may use it: make its router with guarded.router()"
            )
    return app
