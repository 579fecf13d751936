"""rewrite: a completion, whole or in events."""

from collections.abc import Mapping
from typing import Any

import orjson

from router import problems, validation
from router.errors import EngineFailed, EngineInterrupted, EngineStopped, RouterError
from router.metering import Usage, read_usage
from router.surfaces import engine
from router.surfaces.chat.reading import ended
from router.surfaces.chat.stream import DONE
from router.surfaces.surface import Choice, Order, Rewritten

KIND = "text_completion"


def rewrite(data: bytes, order: Order, answer_id: str) -> Rewritten:
    """Raises EngineFailed, EngineAnswerMismatch, EngineStopped (no finish reason), OutputRefused."""
    answer = engine.answer(data, order.engine_name, KIND)
    choices: list[Choice] = []
    public: list[dict[str, Any]] = []
    for index, entry in enumerate(engine.by_index(answer["choices"], order.choices)):
        text, reason = _text(entry), ended(entry.get("finish_reason"))
        if reason is None:
            raise EngineStopped
        choices.append(Choice(text, reason))
        public.append(_choice(index, text, reason, entry, order))
    usage = read_usage(answer.get("usage"))
    fields = _fields(answer_id, engine.created(answer), order, public)
    if usage is not None:
        fields["usage"] = usage.public()
    return Rewritten(orjson.dumps(fields), choices, usage)


class StreamedCompletion:
    def __init__(self, order: Order, answer_id: str) -> None:
        self._order = order
        self._id = answer_id
        self._texts: list[list[str]] = [[] for _ in range(order.choices)]
        self._ends = [""] * order.choices
        """Text of each choice's held-back last event."""
        self._reasons: list[str | None] = [None] * order.choices
        self._held: list[bytes] = []
        self._created = 0
        self.usage: Usage | None = None

    @property
    def contents(self) -> list[str]:
        return ["".join(parts) + end for parts, end in zip(self._texts, self._ends, strict=True)]

    @property
    def contents_before_end(self) -> list[str]:
        return ["".join(parts) for parts in self._texts]

    @property
    def finish_reasons(self) -> list[str]:
        return [reason or "" for reason in self._reasons]

    def accept(self, event: bytes) -> bytes:
        chunk = engine.event(event, self._order.engine_name, KIND)
        self._created = engine.created(chunk)
        self.usage = read_usage(chunk.get("usage")) or self.usage
        read = [self._read(entry) for entry in chunk["choices"]]
        ready = []
        for index, text, reason, frame in read:
            if reason is None:
                self._texts[index].append(text)
                ready.append(frame)
            else:
                self._reasons[index], self._ends[index] = reason, text
                self._held.append(frame)
        return b"".join(ready)

    def finish(self) -> bytes:
        if not all(self._reasons):
            raise EngineInterrupted
        if self._order.include_usage:
            usage = self.usage.public() if self.usage is not None else None
            self._held.append(self._frame([], usage))
        return b"".join((*self._held, DONE))

    def broken(self, error: RouterError) -> bytes:
        return problems.frame(error)

    def _read(self, entry: Any) -> tuple[int, str, str | None, bytes]:
        """One choice's part, checked; changes nothing, so that a bad event leaves no trace."""
        index = engine.choice_index(entry, self._order.choices)
        if self._reasons[index] is not None:  # words after the end are words that nobody validated
            raise EngineFailed
        text, reason = _text(entry), ended(entry.get("finish_reason"))
        if reason is not None:
            whole = "".join((*self._texts[index], text))
            validation.check(self._order.policy, whole, reason, own=self._order.own)
        return index, text, reason, self._frame([_choice(index, text, reason, entry, self._order)], None)

    def _frame(self, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> bytes:
        fields = _fields(self._id, self._created, self._order, choices)
        if self._order.include_usage:
            fields["usage"] = usage
        return b"data: " + orjson.dumps(fields) + b"\n\n"


def _fields(answer_id: str, created: int, order: Order, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": KIND,
        "created": created,
        "model": order.public_name,
        "choices": choices,
    }


def _choice(
    index: int, text: str, reason: str | None, entry: Mapping[str, Any], order: Order
) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": engine.legacy_logprobs(entry) if order.logprobs else None,
        "finish_reason": reason,
    }


def _text(entry: Mapping[str, Any]) -> str:
    text = entry.get("text")
    if not isinstance(text, str):
        raise EngineFailed
    return text
