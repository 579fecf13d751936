"""rewrite: a chat answer as a Message, whole or in events."""

from typing import Any

import orjson

from router.errors import RouterError
from router.metering import Usage
from router.surfaces.chat.reading import CallPart, Piece, read
from router.surfaces.chat.told import Told
from router.surfaces.chat.whole import call_id
from router.surfaces.surface import Order, Rewritten

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip


def rewrite(data: bytes, order: Order, answer_id: str) -> Rewritten:
    answer = read(data, order)
    (choice,) = answer.choices
    content: list[dict[str, Any]] = []
    if choice.content or not choice.tool_calls:
        content.append({"type": "text", "text": choice.content or ""})
    for at, call in enumerate(choice.tool_calls):
        made = {"type": "tool_use", "id": call_id(answer_id, 0, at), "name": call.name}
        # As the model wrote them and as they were validated: decoded, a long integer becomes another number.
        content.append({**made, "input": orjson.Fragment(call.arguments)})
    public = _message(order, answer_id, content, _STOPS[choice.finish_reason], _usage(answer.usage))
    return Rewritten(orjson.dumps(public), answer.choices, answer.usage)


def refusal(error: RouterError) -> dict[str, Any]:
    kind = _TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    told = {"type": kind, "message": error.message, "code": error.code, "hint": error.advice}
    return {"type": "error", "error": told}


class StreamedMessage(Told):
    """The last block's end, why it stopped and ``message_stop`` are held back."""

    def __init__(self, order: Order, answer_id: str) -> None:
        super().__init__(order, answer_id)
        self._last: Piece | None = None
        self._begun = False
        self._blocks = 0
        self._open: str | None = None

    def accept(self, event: bytes) -> bytes:
        ready: list[bytes] = []
        for piece in self._reading.accept(event):
            if not self._begun:
                self._begun = True
                # The engine says what the question cost when it ends: so does this stream.
                begun = _message(self._order, self._id, [], None, {"input_tokens": 0, "output_tokens": 0})
                ready.append(_event("message_start", message=begun))
            if piece.finish_reason is None:
                ready += self._piece(piece)
            else:
                self._last = piece
        return b"".join(ready)

    def finish(self) -> bytes:
        self._reading.finish()
        ready = self._piece(self._last) if self._last is not None else []
        ready += self._close()
        delta = {"stop_reason": _STOPS[self._reading.finish_reasons[0]], "stop_sequence": None}
        ready.append(_event("message_delta", delta=delta, usage=_usage(self.usage)))
        ready.append(_event("message_stop"))
        return b"".join(ready)

    def broken(self, error: RouterError) -> bytes:
        return _event("error", error=refusal(error)["error"])

    def _piece(self, piece: Piece) -> list[bytes]:
        ready: list[bytes] = []
        if piece.content:
            if self._open != "text":
                ready += self._begin("text", {"type": "text", "text": ""})
            ready.append(self._delta({"type": "text_delta", "text": piece.content}))
        for part in piece.calls:
            ready += self._call(part)
        return ready

    def _call(self, part: CallPart) -> list[bytes]:
        ready: list[bytes] = []
        if part.name is not None:
            made = {"type": "tool_use", "id": call_id(self._id, 0, part.at), "name": part.name, "input": {}}
            ready += self._begin("call", made)
        if part.arguments:
            ready.append(self._delta({"type": "input_json_delta", "partial_json": part.arguments}))
        return ready

    def _begin(self, kind: str, block: dict[str, Any]) -> list[bytes]:
        ready = self._close()
        self._open = kind
        return [*ready, _event("content_block_start", index=self._blocks, content_block=block)]

    def _close(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open, self._blocks = None, self._blocks + 1
        return [_event("content_block_stop", index=self._blocks - 1)]

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._blocks, delta=delta)


def _message(
    order: Order, answer_id: str, content: list[dict[str, Any]], stop: str | None, usage: dict[str, int]
) -> dict[str, Any]:
    return {
        "id": answer_id,
        "type": "message",
        "role": "assistant",
        "model": order.public_name,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }


def _usage(usage: Usage | None) -> dict[str, int]:
    found = usage or Usage(0, 0)
    return {"input_tokens": found.prompt, "output_tokens": found.completion}


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **fields}) + b"\n\n"
