"""An OpenAI-compatible server on the loopback whose every answer a test chooses."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], Any]


def said(text: str | None, **choice: Any) -> Answer:
    message = {"role": "assistant", "content": text, **choice.pop("message", {})}
    return 200, {}, {"choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}]}


def refusal(status: int, code: str = "x", **headers: str) -> Answer:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, {
        "error": {"message": f"no\nbecause {code}", "code": code}
    }  # fmt: skip


class Server:
    """Answers with ``reply(request body, number of the request)``."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Answer]) -> None:
        self.reply = reply
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.url = ""


@contextmanager
def serving(reply: Callable[[dict[str, Any], int], Answer]) -> Iterator[Server]:
    state = Server(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with state.lock:
                headers = {name.lower(): value for name, value in self.headers.items()}
                state.seen.append((self.path, headers, body))
                number = len(state.seen)
                state.now += 1
                state.most = max(state.most, state.now)
            status, headers, value = state.reply(body, number)
            with state.lock:
                state.now -= 1
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            with suppress(BrokenPipeError):  # a client that has gone away
                self.answer(status, {"content-type": "application/json", **headers}, data)

        def answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
