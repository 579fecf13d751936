"""Events of a streamed Response.

Each ``done`` of the last item and ``response.completed`` are held back until the answer is validated and its
record is on disk; a call's ``done`` before that is sent only after its arguments were found valid.
"""

from typing import Any

import orjson

from router import problems
from router.errors import RouterError
from router.surfaces.chat.reading import CallPart, Piece
from router.surfaces.chat.told import Told
from router.surfaces.responses import answer
from router.surfaces.surface import Order
from router.surfaces.tools import ToolCall


class StreamedResponse(Told):
    def __init__(self, order: Order, answer_id: str) -> None:
        super().__init__(order, answer_id)
        self._last: Piece | None = None
        self._sequence = 0
        self._begun = False
        self._output: list[dict[str, Any]] = []
        """Items that are done."""
        self._open: str | int | None = None
        """``message``, or the number of a call."""

    def accept(self, event: bytes) -> bytes:
        ready: list[bytes] = []
        for piece in self._reading.accept(event):
            if not self._begun:
                self._begun = True
                begun = self._response("in_progress")
                ready.append(self._event("response.created", response=begun))
                ready.append(self._event("response.in_progress", response=begun))
            if piece.finish_reason is None:
                ready += self._piece(piece)
            else:
                self._last = piece
        return b"".join(ready)

    def finish(self) -> bytes:
        self._reading.finish()
        status = answer.done(self._reading.finish_reasons[0])
        ready = self._piece(self._last) if self._last is not None else []
        if self._open is None and not self._output:  # an answer of no words is one empty message
            ready += self._open_message()
        ready += self._close(status)
        kind = "response.incomplete" if status == "incomplete" else "response.completed"
        ready.append(self._event(kind, response=self._response(status)))
        return b"".join(ready)

    def broken(self, error: RouterError) -> bytes:
        """Both forms: the API's flat one, and the envelope that makes OpenAI's clients raise."""
        public = problems.envelope(error)["error"]
        flat = {name: public[name] for name in ("code", "message", "param")}
        return self._event("error", **flat, error=public)

    def _piece(self, piece: Piece) -> list[bytes]:
        ready: list[bytes] = []
        if piece.content:
            if self._open != "message":
                ready += self._close() + self._open_message()
            ready.append(self._delta("response.output_text", piece.content, content_index=0, logprobs=[]))
        for part in piece.calls:
            ready += self._call(part)
        return ready

    def _call(self, part: CallPart) -> list[bytes]:
        ready: list[bytes] = []
        if part.name is not None:
            ready += self._close()
            self._open = part.at
            item = answer.call(self._id, part.at, ToolCall(part.name, ""), "in_progress")
            ready.append(self._added(item))
        if part.arguments:
            ready.append(self._delta("response.function_call_arguments", part.arguments))
        return ready

    def _open_message(self) -> list[bytes]:
        self._open = "message"
        added = self._added(answer.message(self._id, None, "in_progress"))
        part = self._event(
            "response.content_part.added",
            item_id=self._item_id(),
            output_index=len(self._output),
            content_index=0,
            part=answer.text_part(""),
        )
        return [added, part]

    def _close(self, status: str = "completed") -> list[bytes]:
        """The open item, done."""
        if self._open is None:
            return []
        at: dict[str, Any] = {"item_id": self._item_id(), "output_index": len(self._output)}
        if isinstance(self._open, int):
            made = self._reading.calls(0)[self._open]
            item = answer.call(self._id, self._open, made)
            ready = [
                self._event(
                    "response.function_call_arguments.done", **at, name=made.name, arguments=made.arguments
                )
            ]
        else:
            text = self._reading.text(0)
            item, at = answer.message(self._id, text, status), at | {"content_index": 0}
            ready = [
                self._event("response.output_text.done", **at, text=text, logprobs=[]),
                self._event("response.content_part.done", **at, part=answer.text_part(text)),
            ]
        ready.append(self._event("response.output_item.done", output_index=len(self._output), item=item))
        self._output.append(item)
        self._open = None
        return ready

    def _item_id(self) -> str:
        plain = self._id.rpartition("_")[2]
        return f"fc_{plain}{self._open:02x}" if isinstance(self._open, int) else f"msg_{plain}"

    def _added(self, item: dict[str, Any]) -> bytes:
        return self._event("response.output_item.added", output_index=len(self._output), item=item)

    def _delta(self, kind: str, delta: str, **more: Any) -> bytes:
        return self._event(
            f"{kind}.delta", item_id=self._item_id(), output_index=len(self._output), delta=delta, **more
        )

    def _response(self, status: str) -> dict[str, Any]:
        usage = self.usage if status != "in_progress" else None
        created = self._reading.created
        return answer.response(self._order, self._id, created, self._output, status=status, usage=usage)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = orjson.dumps({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
