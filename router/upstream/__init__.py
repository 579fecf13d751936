"""forward: kept-open HTTP/1.1 connections to the engines, on bare asyncio protocols and a parser in C.

A general HTTP client cost more per request than all else the router does; this one knows a single request
(a POST of JSON) and passes nothing of the client's on but the body.
"""

from router.upstream.pool import EnginePool

__all__ = ["EnginePool"]
