"""An engine's chat answer, whole or in events: read and checked, before it is put into any surface's words.

Built from a list of what is known instead of deleting what is not: vLLM adds fields (``prompt_token_ids``,
``kv_transfer_params``, ``prompt_logprobs``) with each release, and a new one must not leak by default.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from registry import canonical
from router import validation
from router.errors import EngineFailed, EngineInterrupted, EngineStopped, OutputRefused, ToolCallInvalid
from router.metering import Usage, read_usage
from router.surfaces import engine
from router.surfaces.surface import Choice, Order
from router.surfaces.tools import MOST_TOOLS, ToolCall

Logprobs = Mapping[str, Any] | None
FINISHED = ("stop", "length")
"""Every other reason (vLLM's ``abort``, ``error``, tool calls nobody asked for) is an unfinished answer."""


class Answer(NamedTuple):
    choices: Sequence[Choice]
    """By index; tool calls are validated, the policy is not applied yet."""
    logprobs: Sequence[Logprobs]
    usage: Usage | None
    created: int


class CallPart(NamedTuple):
    at: int
    name: str | None
    """None in the parts that follow a call's first."""
    arguments: str


class Piece(NamedTuple):
    """One choice's part of an event."""

    at: int
    content: str | None
    finish_reason: str | None
    calls: Sequence[CallPart] = ()
    logprobs: Logprobs = None
    role: bool = False


def read(data: bytes, order: Order) -> Answer:
    """Raises EngineFailed, EngineAnswerMismatch, EngineStopped (no finish reason), ToolCallInvalid,
    OutputTruncated."""
    answer = engine.answer(data, order.engine_name, "chat.completion")
    choices: list[Choice] = []
    logprobs: list[Logprobs] = []
    for entry in engine.by_index(answer["choices"], order.choices):
        message = entry.get("message")
        if not isinstance(message, dict):
            raise EngineFailed
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            raise EngineFailed
        calls = _whole_calls(message.get("tool_calls"), order)
        reason = ended(entry.get("finish_reason"), len(calls))
        if reason is None:
            raise EngineStopped
        if order.tools is not None:
            order.tools.judge(calls, reason)
        choices.append(Choice(content, reason, calls, refused=bool(message.get("refusal"))))
        logprobs.append(engine.logprobs(entry) if order.logprobs else None)
    return Answer(choices, logprobs, read_usage(answer.get("usage")), engine.created(answer))


def said(content: str, calls: Sequence[ToolCall]) -> str:
    """What a record's digest of a streamed choice is taken of: its text, or with calls the canonical JSON of
    the text and each call's name and arguments."""
    if not calls:
        return content
    return canonical.encode({"content": content, "tool_calls": [list(call) for call in calls]}).decode()


class Reading:
    """A stream so far. A bad event leaves no trace."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._texts: list[list[str]] = [[] for _ in range(order.choices)]
        self._calls: list[list[_Call]] = [[] for _ in range(order.choices)]
        self._reasons: list[str | None] = [None] * order.choices
        self._shown: list[str | None] = [None] * order.choices
        """What a client had of a choice before its held-back last part."""
        self._refused: set[int] = set()
        """Choices of which the engine said that the model declined."""
        self.created = 0
        self.usage: Usage | None = None

    @property
    def contents(self) -> list[str]:
        return [self._said(index) for index in range(self._order.choices)]

    @property
    def contents_before_end(self) -> list[str]:
        return [self._said(index) if shown is None else shown for index, shown in enumerate(self._shown)]

    @property
    def finish_reasons(self) -> list[str]:
        return [reason or "" for reason in self._reasons]

    def accept(self, event: bytes) -> list[Piece]:
        """Raises EngineStopped (error frame), EngineAnswerMismatch, EngineFailed, OutputTruncated,
        OutputInvalid."""
        chunk = engine.event(event, self._order.engine_name, "chat.completion.chunk")
        self.created = engine.created(chunk)
        usage = chunk.get("usage")
        if usage is not None:
            self.usage = read_usage(usage) or self.usage
        pieces = [self._read(entry) for entry in chunk["choices"]]
        for piece in pieces:
            self._keep(piece)
        return pieces

    def more(self, index: int, raw: bytes) -> bool:
        """Take a JSON string as further text of a choice; False, and nothing taken, if it is none."""
        # Quotes at both ends: a space or a newline around a text would be passed on with it.
        if self._reasons[index] is not None or raw[:1] != b'"' or raw[-1:] != b'"':
            return False
        try:
            text = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return False
        if type(text) is not str:
            return False
        self._texts[index].append(text)
        return True

    def finish(self) -> None:
        """Raises EngineInterrupted while a choice has no ``finish_reason``.

        The engine's own ``[DONE]`` is no evidence: vLLM sends one after an error, too.
        """
        if not all(self._reasons):
            raise EngineInterrupted

    def calls(self, index: int) -> list[ToolCall]:
        return [call.whole for call in self._calls[index]]

    def text(self, index: int) -> str:
        return "".join(self._texts[index])

    def _read(self, entry: Any) -> Piece:
        order = self._order
        index = engine.choice_index(entry, order.choices)
        if self._reasons[index] is not None:  # words after the end are words that nobody validated
            raise EngineFailed
        delta = entry.get("delta")
        if not isinstance(delta, dict):
            raise EngineFailed
        content = delta.get("content")
        if content is not None and not isinstance(content, str):
            raise EngineFailed
        given = delta.get("tool_calls")
        parts = self._parts(index, given) if given else ()
        if delta.get("refusal"):
            self._refused.add(index)
        reason = ended(entry.get("finish_reason"), len(self._calls[index]) + len(parts))
        if reason is not None:
            self._judge(index, content or "", parts, reason)
        logprobs = engine.logprobs(entry) if order.logprobs else None
        return Piece(index, content, reason, parts, logprobs, delta.get("role") is not None)

    def _parts(self, index: int, given: Any) -> list[CallPart]:
        """Raises ToolCallInvalid as soon as a call that is over is not what was asked for, and EngineStopped
        for what is no call: a tool parser makes them of an adapter's words, so they are no engine's fault.
        """
        if self._order.tools is None or not isinstance(given, list):
            raise EngineStopped
        known = len(self._calls[index])
        parts: list[CallPart] = []
        for entry in given:
            at = entry.get("index") if isinstance(entry, dict) else None
            function = entry.get("function") if isinstance(entry, dict) else None
            if type(at) is not int or not isinstance(function, dict):
                raise EngineStopped
            name, arguments = function.get("name"), function.get("arguments") or ""
            if not isinstance(arguments, str):
                raise EngineStopped
            if at == known and isinstance(name, str) and known < MOST_TOOLS:
                if known and known == len(self._calls[index]):
                    self._order.tools.check(self._calls[index][-1].whole)
                if name not in self._order.tools.offered:
                    raise ToolCallInvalid
                known += 1
                parts.append(CallPart(at, name, arguments))
            elif 0 <= at == known - 1:
                parts.append(CallPart(at, None, arguments))
            else:
                raise EngineStopped
        return parts

    def _judge(self, index: int, content: str, parts: Sequence[CallPart], reason: str) -> None:
        calls = [_Call(call.name, [*call.parts]) for call in self._calls[index]]
        _extend(calls, parts)
        whole = [call.whole for call in calls]
        if self._order.tools is not None:
            self._order.tools.judge(whole, reason)
        text = "".join((*self._texts[index], content))
        if not whole:
            refused = index in self._refused
            validation.check(self._order.policy, text, reason, refused=refused, own=self._order.own)

    def _keep(self, piece: Piece) -> None:
        if piece.finish_reason is not None:
            self._shown[piece.at] = self._said(piece.at)
            self._reasons[piece.at] = piece.finish_reason
        if piece.content:
            self._texts[piece.at].append(piece.content)
        if piece.calls:
            _extend(self._calls[piece.at], piece.calls)

    def _said(self, index: int) -> str:
        return said(self.text(index), self.calls(index))


class _Call:
    __slots__ = ("name", "parts")

    def __init__(self, name: str, parts: list[str]) -> None:
        self.name, self.parts = name, parts

    @property
    def whole(self) -> ToolCall:
        return ToolCall(self.name, "".join(self.parts))


def _extend(calls: list[_Call], parts: Sequence[CallPart]) -> None:
    for part in parts:
        if part.name is None:
            calls[part.at].parts.append(part.arguments)
        else:
            calls.append(_Call(part.name, [part.arguments]))


def _whole_calls(given: Any, order: Order) -> list[ToolCall]:
    if not given:
        return []
    if order.tools is None or not isinstance(given, list) or len(given) > MOST_TOOLS:
        raise EngineStopped
    calls = []
    for entry in given:
        function = entry.get("function") if isinstance(entry, dict) else None
        if not isinstance(function, dict):
            raise EngineStopped
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise EngineStopped
        calls.append(ToolCall(name, arguments))
    return calls


def ended(reason: Any, calls: int = 0) -> str | None:
    """None while the choice is unfinished; raises EngineStopped for a reason that is no proper end,
    OutputRefused for a filter's.

    ``tool_calls`` whenever there are any: vLLM says ``stop`` for a function that was asked for by name.
    """
    if reason is None:
        return None
    if reason == "tool_calls" or (reason == "stop" and calls):
        if not calls:
            raise EngineStopped
        return "tool_calls"
    if reason == "content_filter":
        raise OutputRefused
    if reason not in FINISHED:
        raise EngineStopped
    return str(reason)
