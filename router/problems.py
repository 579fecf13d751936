"""The one renderer that turns an error into what an OpenAI client understands."""

from typing import Any

import orjson

from router.errors import Internal, RouterError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
}


def public(error: BaseException) -> RouterError:
    """``error`` if a client may read it, else :class:`Internal`: other sentences may carry paths or names."""
    return error if isinstance(error, RouterError) else Internal()


def envelope(error: RouterError) -> dict[str, Any]:
    kind = "server_error" if error.status >= 500 else _TYPES.get(error.status, "invalid_request_error")
    param = error.facts.get("param")
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": param if isinstance(param, str) else None,
            "code": error.code,
            "hint": error.advice,
        }
    }


def body(error: RouterError) -> bytes:
    return orjson.dumps(envelope(error))


def frame(error: RouterError) -> bytes:
    """The same as the last event of a stream that had already begun; no ``[DONE]`` ever follows it."""
    return b"data: " + body(error) + b"\n\n"
