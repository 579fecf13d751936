"""Where an engine listens, worked out once per URL: host and port, or the path of a unix socket."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

UNIX = "http+unix"
"""``http+unix://%2Frun%2Fengine.sock/path``: the socket's path percent-encoded as the host, as curl's and
Docker's client libraries spell it."""
_LENGTH = b"Content-Length: "
_PORTS = {"http": 80, "https": 443, UNIX: 0}


@dataclass(frozen=True, slots=True)
class Origin:
    """What a connection leads to; two with the same origin are interchangeable."""

    host: str
    port: int
    tls: bool
    socket: str | None


@dataclass(frozen=True, slots=True)
class Address:
    origin: Origin
    head: bytes
    """The request's head up to the value of Content-Length, which is its last header."""

    def traced(self, traceparent: bytes) -> bytes:
        """The head of a request that is part of a trace."""
        return b"%btraceparent: %b\r\n%b" % (self.head[: -len(_LENGTH)], traceparent, _LENGTH)


def address_of(url: str) -> Address:
    """Raises ValueError for what is not an absolute http, https or http+unix URL."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        raise ValueError("an engine's URL is absolute: http, https or http+unix, without credentials")
    path = parts.path or "/"
    if parts.query:
        path += "?" + parts.query
    socket = unquote(parts.netloc) if parts.scheme == UNIX else None
    host = "localhost" if socket is not None else parts.netloc
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        "Accept-Encoding: identity\r\nUser-Agent: tenon-router\r\nContent-Length: "
    )
    if not head.isascii() or any(letter in f"{path}{host}" for letter in " \r\n\t\0"):
        raise ValueError("an engine's URL is plain ASCII without spaces")
    return Address(
        Origin(
            host=parts.hostname if socket is None else "",
            port=parts.port or _PORTS[parts.scheme],
            tls=parts.scheme == "https",
            socket=socket,
        ),
        head.encode("ascii"),
    )
