"""Server-sent events of a streamed answer: split, checked and rewritten one by one.

What ends an answer (each choice's ``finish_reason`` chunk, the usage, ``[DONE]``) is held back until every
choice is finished and validated and the record is on disk, so a client that saw the end saw a good answer.
"""

import re
from typing import Any

import orjson

from router import rewriting, validation
from router.constrained import Order
from router.errors import EngineFailed, EngineInterrupted
from router.metering import Usage, read_usage

DONE = b"data: [DONE]\n\n"
MOST_EVENT_BYTES = 1 << 20
# A CR at the very end of what arrived may be the first half of CRLF: wait for the next byte.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class EventReader:
    """``data`` of each complete event, whatever way the bytes were cut (HTML standard, 9.2.6).

    An event that the stream's end cuts off is never returned.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Events completed by ``piece``. Raises EngineFailed for one beyond MOST_EVENT_BYTES."""
        text = self._rest + piece
        events: list[bytes] = []
        at = 0
        for end in _LINE_END.finditer(text):
            self._line(text[at : end.start()], events)
            at = end.end()
        self._rest = text[at:]
        if len(self._rest) + self._size > MOST_EVENT_BYTES:
            raise EngineFailed
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        elif line.startswith(b"data:"):
            value = line[6:] if line.startswith(b"data: ") else line[5:]
            self._data.append(value)
            self._size += len(value)


class StreamedAnswer:
    """The rewriting state of one stream. ``accept`` each event, then ``finish``."""

    def __init__(self, order: Order, answer_id: str) -> None:
        self._order = order
        self._id = answer_id
        self._parts: list[list[str]] = [[] for _ in range(order.choices)]
        self._reasons: list[str | None] = [None] * order.choices
        self._held: list[bytes] = []
        self._created = 0
        self.usage: Usage | None = None

    @property
    def contents(self) -> list[str]:
        """Concatenated content per choice, by index."""
        return ["".join(parts) for parts in self._parts]

    @property
    def finish_reasons(self) -> list[str]:
        return [reason or "" for reason in self._reasons]

    def accept(self, event: bytes) -> bytes:
        """What may be sent on now (possibly nothing).

        Raises EngineInterrupted (error frame), EngineAnswerMismatch, EngineFailed, OutputTruncated,
        OutputInvalid.
        """
        chunk = rewriting.read_object(event)
        if "error" in chunk:
            raise EngineInterrupted
        rewriting.check_model(chunk, self._order.engine_name)
        entries = chunk.get("choices")
        if chunk.get("object") != "chat.completion.chunk" or not isinstance(entries, list):
            raise EngineFailed
        self._created = rewriting.created(chunk)
        self.usage = read_usage(chunk.get("usage")) or self.usage
        return b"".join(self._entry(entry) for entry in entries)

    def finish(self) -> bytes:
        """The held-back end. Raises EngineInterrupted while a choice has no ``finish_reason``.

        The engine's own ``[DONE]`` is no evidence: vLLM sends one after an error, too.
        """
        if not all(self._reasons):
            raise EngineInterrupted
        if self._order.include_usage:
            usage = self.usage.public() if self.usage is not None else None
            self._held.append(self._event([], usage=usage))
        return b"".join((*self._held, DONE))

    def _entry(self, entry: Any) -> bytes:
        index = rewriting.choice_index(entry, self._order)
        if self._reasons[index] is not None:  # words after the end are words that nobody validated
            raise EngineFailed
        delta = entry.get("delta")
        if not isinstance(delta, dict):
            raise EngineFailed
        public: dict[str, Any] = {}
        if delta.get("role") is not None:
            public["role"] = "assistant"
        content = delta.get("content")
        if content is not None:
            if not isinstance(content, str):
                raise EngineFailed
            public["content"] = content
            self._parts[index].append(content)
        reason = rewriting.finish_reason(entry)
        event = self._event(
            [
                {
                    "index": index,
                    "delta": public,
                    "logprobs": rewriting.logprobs(entry, self._order),
                    "finish_reason": reason,
                }
            ]
        )
        if reason is None:
            return event
        self._reasons[index] = reason
        validation.check(self._order.policy, "".join(self._parts[index]), reason)
        self._held.append(event)
        return b""

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        fields: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._order.public_name,
            "choices": choices,
        }
        if self._order.include_usage:
            fields["usage"] = usage
        return b"data: " + orjson.dumps(fields) + b"\n\n"
