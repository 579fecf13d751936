"""An engine that thinks nothing: a fixed answer as fast as one Python process can write it.

``python -m bench.router.stub PORT``. It answers what the router checks (the model's name, a finish reason,
JSON of the schema). A prompt that contains HOLD gets the first piece of a stream and then waits.
"""

import asyncio
import json
import sys

import httptools
import uvloop

EVENTS = 34
ANSWER = {
    "decision": "approve",
    "amount": 640,
    "reason": "the invoice matches the order and the supplier is known",
}
_TEXT = json.dumps(ANSWER, separators=(",", ":"))
_MODEL = b'"model":"'
_PLACE = b"@model@"
_EXTRA = {"system_fingerprint": "vllm", "prompt_logprobs": None, "kv_transfer_params": None}
_USAGE = {"prompt_tokens": 96, "completion_tokens": 32, "total_tokens": 128}


def _bytes(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _whole() -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": _TEXT, "tool_calls": [], "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    return _bytes(
        {
            "id": "chatcmpl-0123456789abcdef0123456789abcdef",
            "object": "chat.completion",
            "created": 1750000000,
            "model": "@model@",
            "choices": [choice],
            "usage": _USAGE,
            **_EXTRA,
        }
    )


def _chunk(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    event = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1750000000,
        "model": "@model@",
        "choices": choices,
        **more,
    }
    return b"data: " + _bytes(event) + b"\n\n"


def _stream() -> list[bytes]:
    """34 pieces: a role, 31 of text, the end, and usage with [DONE]."""
    parts = EVENTS - 3
    size = -(-len(_TEXT) // parts)
    texts = [_TEXT[at : at + size] for at in range(0, len(_TEXT), size)]
    texts += [""] * (parts - len(texts))
    return [
        _chunk({"role": "assistant", "content": ""}),
        *(_chunk({"content": text}) for text in texts),
        _chunk({"content": ""}, "stop"),
        _chunk({}, None, usage=_USAGE).replace(
            b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":null}]', b'"choices":[]'
        )
        + b"data: [DONE]\n\n",
    ]


_WHOLE, _PIECES = _whole(), _stream()
_HEAD = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Stub(asyncio.Protocol):
    def __init__(
        self, loop: asyncio.AbstractEventLoop, wholes: dict[bytes, bytes], streams: dict[bytes, list[bytes]]
    ) -> None:
        """``wholes`` and ``streams``: ready answers by model, shared by all connections."""
        self._wholes = wholes
        self._streams = streams
        self._call_soon = loop.call_soon
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        start = body.find(_MODEL) + len(_MODEL)
        model = body[start : body.find(b'"', start)]
        if b'"stream":true' not in body:
            answer = self._wholes.get(model)
            if answer is None:
                text = _WHOLE.replace(_PLACE, model)
                answer = self._wholes[model] = _HEAD % len(text) + text
            self._transport.write(answer)  # type: ignore[attr-defined]
            return
        pieces = self._streams.get(model)
        if pieces is None:
            texts = [piece.replace(_PLACE, model) for piece in _PIECES]
            pieces = self._streams[model] = [b"%x\r\n%b\r\n" % (len(text), text) for text in texts]
        if b"HOLD" in body:
            self._transport.write(_STREAM_HEAD + pieces[0])  # type: ignore[attr-defined]
        else:
            self._write(_STREAM_HEAD + pieces[0], pieces, 1)

    def _write(self, data: bytes, pieces: list[bytes], at: int) -> None:
        """Each piece in a round of the loop of its own, so that each is sent by itself, as tokens are."""
        if self._transport.is_closing():
            return
        self._transport.write(data)  # type: ignore[attr-defined]
        if at < len(pieces):
            last = at + 1 == len(pieces)
            self._call_soon(self._write, pieces[at] + b"0\r\n\r\n" if last else pieces[at], pieces, at + 1)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    wholes: dict[bytes, bytes] = {}
    streams: dict[bytes, list[bytes]] = {}
    server = await loop.create_server(lambda: Stub(loop, wholes, streams), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
