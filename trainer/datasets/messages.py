"""Messages of a conversation, tool calls and their results among them, each checked and in its order."""

import difflib
import json
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

from registry import canonical
from registry.errors import InvalidDocument

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
_ROLES: Final = ("system", "user", "assistant", "tool")
_KEYS: Final = ("role", "content", "tool_calls", "tool_call_id", "name")


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str
    """A JSON object as text, in the key order of the file: a model learns an order too."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "type": "function",
            "function": {"name": self.name, "arguments": json.loads(self.arguments)},
        }


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    """Of the tool whose result this is."""

    def as_dict(self) -> dict[str, Any]:
        """As chat templates and OpenAI clients take it."""
        fields: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            fields["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        if self.name is not None:
            fields["name"] = self.name
        return fields


def unknown_key(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"{key[:40]!r} is not a known key" + (f"; did you mean {near[0]}?" if near else "")


def read_messages(value: Any, *, name: str = "messages") -> tuple[list[str], tuple[Message, ...]]:
    """(faults, messages): an optional system message, then user and assistant in turn, none empty; between a
    tool call and the assistant's next words stands one result for each call."""
    if not isinstance(value, list) or not value:
        return [f"{name} must be a list with at least one message"], ()
    faults: list[str] = []
    messages: list[Message] = []
    for place, entry in enumerate(value):
        if (trouble := _message_fault(entry)) is not None:
            faults.append(f"{name}[{place}]{trouble}")
        else:
            messages.append(_message(entry))
    if faults:
        return faults, ()
    if (trouble := _order_fault(messages, value, name)) is not None:
        return [trouble], ()
    return [], tuple(messages)


def _order_fault(messages: list[Message], entries: list[dict[str, Any]], name: str) -> str | None:
    """Everything after the first wrong turn is wrong too: one fault says it."""
    start = 1 if messages[0].role == "system" else 0
    if start == len(messages):
        return f"{name} has no user message"
    expected = "user"
    waiting: list[Any] = []
    for place in range(start, len(messages)):
        message, where = messages[place], f"{name}[{place}]"
        if message.role != expected:
            return f"{where}.role is {message.role}, expected {expected}{_advice(message.role, expected)}"
        if message.role == "assistant":
            waiting = list(entries[place].get("tool_calls") or ())
            expected = "tool" if waiting else "user"
        elif message.role == "tool":
            if (trouble := _answers_fault(entries[place], waiting.pop(0))) is not None:
                return f"{where}{trouble}"
            expected = "tool" if waiting else "assistant"
        else:
            expected = "assistant"
    return None


def _advice(role: str, expected: str) -> str:
    if expected == "tool":
        return " (a tool call without its result: add a tool message with what the tool returned)"
    if role == "tool":
        return " (a result without a call: give the assistant message before it tool_calls)"
    if role == "system":
        return " (a system message stands first or not at all)"
    return ""


def _answers_fault(result: dict[str, Any], call: dict[str, Any]) -> str | None:
    """Templates print results in their order and no ids, so they must stand in the order of their calls."""
    called = _function(call)["name"]
    if result.get("name") not in (None, called):
        return f" is the result of {result['name'][:40]!r}, expected that of {called[:40]!r}"
    given, wanted = result.get("tool_call_id"), call.get("id")
    if given is not None and wanted is not None and given != wanted:
        return f".tool_call_id is {str(given)[:40]!r}, expected {str(wanted)[:40]!r} (the order of the calls)"
    return None


def _message(entry: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(call["name"], _arguments(call["arguments"]))
        for call in map(_function, entry.get("tool_calls") or ())
    )
    return Message(cast("Role", entry["role"]), entry.get("content") or "", calls, entry.get("name"))


def _function(call: Any) -> Any:
    return call.get("function", call) if isinstance(call, dict) else None


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _message_fault(entry: Any) -> str | None:  # noqa: PLR0911 - one return a fault
    if not isinstance(entry, dict):
        return " must be an object with role and content"
    if "from" in entry and "value" in entry:
        return " has from and value (ShareGPT): write role (user, assistant) and content"
    if extra := [key for key in entry if key not in _KEYS]:
        return f": {unknown_key(extra[0], ('role', 'content'))}"
    role = entry.get("role")
    if role not in _ROLES:
        return f".role must be one of {', '.join(_ROLES)}{_nearest_role(role)}"
    calls = entry.get("tool_calls")
    if calls is not None:
        if role != "assistant":
            return ".tool_calls belongs to an assistant message"
        if (trouble := _calls_fault(calls)) is not None:
            return trouble
    if not isinstance(entry.get("name"), str | None):
        return ".name must be text"
    content = entry.get("content", "" if calls else None)
    if content is None and calls:
        return None
    if not isinstance(content, str):
        return ".content must be text"
    if not content.strip() and not calls:
        # TRL would learn a bare end of turn from it.
        taught = ", and teaches to say nothing: write the answer or delete the row"
        return f".content is empty{taught if role == 'assistant' else ''}"
    return None


def _nearest_role(role: Any) -> str:
    known = {
        "human": "user",
        "gpt": "assistant",
        "bot": "assistant",
        "model": "assistant",
        "function": "tool",
    }
    if not isinstance(role, str):
        return ""
    near = known.get(role.lower()) or next(iter(difflib.get_close_matches(role.lower(), _ROLES, n=1)), None)
    return f"; did you mean {near}?" if near else ""


def _calls_fault(calls: Any) -> str | None:
    if not isinstance(calls, list) or not calls:
        return ".tool_calls must be a list with at least one call"
    for place, call in enumerate(map(_function, calls)):
        where = f".tool_calls[{place}]"
        if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
            return f"{where} must be a function with name and arguments"
        arguments = call.get("arguments")
        if isinstance(arguments, str):
            try:
                arguments = canonical.decode(arguments)
            except InvalidDocument:
                return f"{where}.arguments is text, but not JSON"
        if not isinstance(arguments, dict):
            return f"{where}.arguments must be a JSON object"
    return None
