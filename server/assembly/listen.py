"""Serving an ASGI app the same way in every role."""

from typing import Any

import uvicorn

from server.assembly import logs


def serve(
    app: Any, *, host: str, port: int, log_level: str, log_format: str = "text", drain: int = 15
) -> None:
    """Blocks until SIGTERM or SIGINT, then gives requests ``drain`` seconds.

    Not uvicorn's access log: request lines may carry tenants' data.
    """
    logs.start(log_level, log_format)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level=log_level,
        log_config=None if log_format == "json" else uvicorn.config.LOGGING_CONFIG,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=drain,
    )
