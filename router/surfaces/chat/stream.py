"""Events of a streamed answer: checked and rewritten one by one.

What ends an answer (each choice's ``finish_reason`` chunk, the usage, ``[DONE]``) is held back until every
choice is finished and validated and the record is on disk, so a client that saw the end saw a good answer.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from router import validation
from router.errors import EngineFailed, EngineInterrupted
from router.metering import Usage, read_usage
from router.surfaces.chat import whole as rewriting
from router.surfaces.surface import Order

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class _Piece:
    index: int
    content: str
    finish_reason: str | None
    event: bytes


class StreamedAnswer:
    """The rewriting state of one stream. ``accept`` each event, then ``finish``."""

    def __init__(self, order: Order, answer_id: str) -> None:
        self._order = order
        self._id = answer_id
        self._parts: list[list[str]] = [[] for _ in range(order.choices)]
        self._ends: list[str] = [""] * order.choices
        """Text of each choice's held-back last chunk."""
        self._reasons: list[str | None] = [None] * order.choices
        self._held: list[bytes] = []
        self._created = 0
        self.usage: Usage | None = None

    @property
    def contents(self) -> list[str]:
        """Whole text per choice, by index."""
        return ["".join(parts) + end for parts, end in zip(self._parts, self._ends, strict=True)]

    @property
    def contents_before_end(self) -> list[str]:
        """The same without what is held back: what a client has when the stream fails under way."""
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
        taken = [self._take(entry) for entry in entries]
        return b"".join([self._commit(piece) for piece in taken])

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

    def _take(self, entry: Any) -> "_Piece":
        """Check one choice's part of a chunk; changes nothing, so that a bad chunk leaves no trace."""
        index = rewriting.choice_index(entry, self._order)
        if self._reasons[index] is not None:  # words after the end are words that nobody validated
            raise EngineFailed
        delta = entry.get("delta")
        content = delta.get("content") if isinstance(delta, dict) else None
        if not isinstance(delta, dict) or not isinstance(content, str | None):
            raise EngineFailed
        public: dict[str, Any] = {}
        if delta.get("role") is not None:
            public["role"] = "assistant"
        if content is not None:
            public["content"] = content
        reason = rewriting.finish_reason(entry)
        if reason is not None:
            whole = "".join((*self._parts[index], content or ""))
            validation.check(self._order.policy, whole, reason)
        choice = {
            "index": index,
            "delta": public,
            "logprobs": rewriting.logprobs(entry, self._order),
            "finish_reason": reason,
        }
        return _Piece(index, content or "", reason, self._event([choice]))

    def _commit(self, piece: "_Piece") -> bytes:
        """The event if it may go out now; an end is held back."""
        if piece.finish_reason is None:
            self._parts[piece.index].append(piece.content)
            return piece.event
        self._reasons[piece.index] = piece.finish_reason
        self._ends[piece.index] = piece.content
        self._held.append(piece.event)
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
