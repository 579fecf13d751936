"""Between a client and the S3 server: a proxy that does what networks and overloaded stores do."""

import base64
import hashlib
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>made up</Message></Error>'


@dataclass
class Front:
    """``faults``: (method, part of the path, what), each used once by the first request that fits; ``*`` in
    front of what: by every one."""

    endpoint: str = ""
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    """A request that hangs goes on when this is set."""
    arrived: threading.Event = field(default_factory=threading.Event)
    """Set by a request that is held up."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> str:
        with self._lock:
            self.requests.append((method, path))
            for number, (wanted, part, what) in enumerate(self.faults):
                if wanted == method and part in path:
                    if not what.startswith("*"):
                        del self.faults[number]
                    return what.lstrip("*")
        return ""

    def count(self, method: str) -> int:
        return sum(1 for found, _ in self.requests if found == method)


@contextmanager
def front(upstream: str) -> Iterator[Front]:
    found = Front()
    host = urlsplit(upstream).netloc

    class Handler(_Handler):
        behind, state = host, found

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    found.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        found.held.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind: str
    state: Front

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        what = self.state.fault(self.command, self.path)
        with suppress(ConnectionError):
            if what in ("reset", "500", "503", "501", "409", "403"):
                self._refuse(what)
            elif what == "hang":
                self.state.arrived.set()
                self.state.held.wait(60)
                self.close_connection = True
            elif what == "flip":
                self._flipped(body)
            elif what == "unconditional" and self.headers.get("If-None-Match"):
                self._answer(501, {}, _ERROR.format("NotImplemented").encode())
            else:
                if what == "hold":
                    self.state.arrived.set()
                    self.state.held.wait(60)
                status, headers, data = self._forward(body, ignore_condition=what == "ignorant")
                self._pass_on(what, status, headers, data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 (http.server looks for them)

    def _refuse(self, what: str) -> None:
        if what == "reset":
            self.close_connection = True
            return
        codes = {"500": "InternalError", "503": "SlowDown", "501": "NotImplemented"}
        codes |= {"409": "ConditionalRequestConflict", "403": "AccessDenied"}
        self._answer(int(what), {}, _ERROR.format(codes[what]).encode())

    def _flipped(self, body: bytes) -> None:
        """As S3 does (the server of the tests believes every checksum): compare, then refuse."""
        damaged = bytes([body[0] ^ 1]) + body[1:]
        sums = {
            "x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(damaged).digest()).decode(),
            "Content-MD5": base64.b64encode(hashlib.md5(damaged).digest()).decode(),
        }
        if any(self.headers.get(name) not in (None, value) for name, value in sums.items()):
            self._answer(400, {}, _ERROR.format("BadDigest").encode())
            return
        self._pass_on("", *self._forward(damaged))

    def _pass_on(self, what: str, status: int, headers: dict[str, str], data: bytes) -> None:
        if what == "lost":  # it happened, and nobody is told
            self.close_connection = True
        elif what == "truncate":
            self._answer(status, headers, data, sent=data[: len(data) // 2])
        elif what == "wrong":
            self._answer(status, headers, data, sent=bytes([data[0] ^ 1]) + data[1:])
        elif what == "dribble":
            self._answer(status, headers, data, sent=b"")
            for position in range(len(data)):
                self.wfile.write(data[position : position + 1])
                if self.state.held.wait(0.02):
                    return
        else:
            self._answer(status, headers, data)

    def _forward(self, body: bytes, *, ignore_condition: bool = False) -> tuple[int, dict[str, str], bytes]:
        skipped = {"expect", "connection"} | ({"if-none-match"} if ignore_condition else set())
        headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
        connection = http.client.HTTPConnection(self.behind, timeout=30)
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: dict[str, str], data: bytes, *, sent: bytes | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "content-length", "transfer-encoding", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length") or headers.get("content-length") or str(len(data))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        if sent is not None and len(sent) != len(data):
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if sent is None else sent)
