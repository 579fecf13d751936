"""The agent's own small HTTP face: health, readiness with reasons, metrics. Never reached by tenants."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.engines.agent import Agent


def create_agent_app(agent: Agent) -> Starlette:
    """``/healthz`` the agent runs · ``/readyz`` 200 when nothing blocks (:class:`~server.engines.state.Why`),
    else 503 · ``/state`` the same body, always 200 · ``/metrics``. The app does not run the agent: whoever
    serves it does."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        state = agent.state
        return JSONResponse(state.as_json(), status_code=200 if state.is_ready else 503)

    async def state(_: Request) -> Response:
        return JSONResponse(agent.state.as_json())

    async def metrics(_: Request) -> Response:
        return Response(agent.metrics.render(agent.state), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/state", state),
            Route("/metrics", metrics),
        ]
    )
