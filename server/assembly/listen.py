"""Serving an ASGI app the same way in every role."""

import logging
from typing import Any

import uvicorn


def serve(app: Any, *, host: str, port: int, log_level: str, drain: int = 15) -> None:
    """Blocks until SIGTERM or SIGINT, then gives requests ``drain`` seconds.

    No access log: request lines may carry tenants' data.
    """
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level=log_level,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=drain,
    )
