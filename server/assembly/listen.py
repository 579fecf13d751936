"""Serving an ASGI app: the control plane as uvicorn does it, the router as strangers need it."""

from typing import Any

import uvicorn

from router import serving
from router.app import RouterApp
from server.assembly import logs

_NOT_STARTED = 3
"""uvicorn's exit status for an application that cannot start."""


def serve(
    app: Any,
    *,
    host: str,
    port: int,
    log_level: str,
    log_format: str = "text",
    drain: int = 15,
    keep_alive: int = 5,
) -> None:
    """Blocks until SIGTERM or SIGINT, then gives requests ``drain`` seconds. ``keep_alive``: seconds that a
    connection may idle; the default is uvicorn's.

    Not uvicorn's access log: request lines may carry tenants' data.
    """
    logs.start(log_level, log_format)
    settings: dict[str, Any] = {
        "host": host,
        "port": port,
        "log_level": log_level,
        "timeout_keep_alive": keep_alive,
        "log_config": None if log_format == "json" else uvicorn.config.LOGGING_CONFIG,
    }
    if isinstance(app, RouterApp):
        server = serving.server(app, app.drain, seconds=drain, **settings)
        server.run()
        if not server.started:
            raise SystemExit(_NOT_STARTED)
        return
    uvicorn.run(
        app,
        **settings,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=drain,
    )
