"""Functions that a client offers to the model, and the calls that the model makes of them.

The engine is always asked for strict decoding: without it vLLM checks no argument at all (0 of 10 calls were
valid). The arguments are checked again, because engines were seen to enforce less than they were asked to.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from registry import canonical
from registry.errors import InvalidDocument
from registry.policies import MAX_BYTES
from router.errors import (
    InvalidRequest,
    OutputTruncated,
    RouterError,
    ToolCallInvalid,
    ToolNotAllowed,
    UnsupportedParameter,
)
from router.policies import CompiledPolicy
from router.schemas import ClientSchema, look
from router.surfaces import fields

MOST_TOOLS = 128
"""OpenAI's bound."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
_NOTHING: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_MODES = ("auto", "required", "none")


class ToolCall(NamedTuple):
    name: str
    arguments: str
    """JSON, as the model wrote it."""


class Function(NamedTuple):
    told: Mapping[str, Any]
    """As the engine is told of it."""
    schema: ClientSchema


class Tools(NamedTuple):
    offered: Mapping[str, ClientSchema]
    listed: Sequence[Mapping[str, Any]]
    """As the engine is told of them."""
    mode: str = "auto"
    """auto, required, none, or ``named``."""
    named: str | None = None
    parallel: bool = True

    def fields(self) -> dict[str, Any]:
        """Of the engine's request."""
        choice: Any = self.mode
        if self.named is not None:
            choice = {"type": "function", "function": {"name": self.named}}
        return {"tools": self.listed, "tool_choice": choice, "parallel_tool_calls": self.parallel}

    def check(self, call: ToolCall) -> None:
        """Raises ToolCallInvalid."""
        accepts = self.offered.get(call.name) if self.mode != "none" else None
        if accepts is None or (self.named is not None and call.name != self.named):
            raise ToolCallInvalid
        arguments = _decode(call.arguments)
        if not isinstance(arguments, dict) or not accepts(arguments):
            raise ToolCallInvalid

    def judge(self, calls: Sequence[ToolCall], finish_reason: str) -> None:
        """All calls of a finished choice. Raises ToolCallInvalid, OutputTruncated."""
        if finish_reason == "length":
            if calls or self.mode in ("required", "named"):
                raise OutputTruncated
            return
        if (not calls and self.mode in ("required", "named")) or (len(calls) > 1 and not self.parallel):
            raise ToolCallInvalid
        for call in calls:
            self.check(call)


def _decode(arguments: str) -> Any:
    """Strict JSON that every client can read: half a surrogate pair is no text, and an object names a key
    once. What orjson writes back as the same text does."""
    try:
        value = orjson.loads(arguments)
        if orjson.dumps(value) != arguments.encode():
            value = canonical.decode(arguments)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, UnicodeEncodeError, InvalidDocument):
        raise ToolCallInvalid from None
    return value


def permit(tools: Tools, policy: CompiledPolicy) -> None:
    """The one place that decides which tools a policy allows.

    Raises ToolNotAllowed, or UnsupportedParameter beside a schema: it is enforced on every word that the
    model writes, so a call could never be written.
    """
    if policy.accepts is not None:
        raise UnsupportedParameter("tools cannot be combined with a policy's schema", param="tools")
    for name in tools.offered:
        if not policy.allows_tool(name):
            raise ToolNotAllowed(name)


def read_tools(given: Mapping[str, Any]) -> Tools | None:
    """``tools``, ``tool_choice`` and ``parallel_tool_calls`` of a chat request, each already read."""
    listed = given.get("tools")
    if not listed:
        for name in ("tool_choice", "parallel_tool_calls"):
            if given.get(name) not in (None, "none"):
                raise InvalidRequest(f"{name} needs tools", param=name)
        return None
    return chosen(listed, given.get("tool_choice"), parallel=given.get("parallel_tool_calls", True))


def chosen(functions: Sequence[Function], choice: str | None, *, parallel: bool) -> Tools:
    """``choice``: a mode, or ``function:NAME``."""
    offered = {each.told["name"]: each.schema for each in functions}
    if len(offered) != len(functions):
        raise InvalidRequest("two tools have the same name", param="tools")
    mode, _, named = (choice or "auto").partition(":")
    if named and named not in offered:
        raise InvalidRequest("tool_choice names a tool that is not offered", param="tool_choice")
    listed = [{"type": "function", "function": {**each.told, "strict": True}} for each in functions]
    return Tools(offered, listed, "named" if named else mode, named or None, parallel)


def functions(name: str, value: Any) -> list[Function]:
    """Chat's ``tools``: a list of ``{"type": "function", "function": {…}}``."""
    found = []
    for index, entry in enumerate(listed(name, value)):
        at = f"{name}[{index}]"
        fields.known(at, entry, ("type", "function"))
        if entry.get("type") != "function":
            raise UnsupportedParameter(f"{at}.type must be 'function'", param=f"{at}.type")
        found.append(function(f"{at}.function", fields.mapping(f"{at}.function", entry.get("function"))))
    return found


def listed(name: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > MOST_TOOLS:
        raise InvalidRequest(f"{name} must be a list of at most {MOST_TOOLS} tools", param=name)
    return [fields.mapping(f"{name}[{index}]", entry) for index, entry in enumerate(value)]


def function(at: str, entry: Mapping[str, Any], *, schema: str = "parameters") -> Function:
    """Name, description and parameters; ``strict`` is read and always true for the engine.

    The schema is only spelled here: looking at it takes time that a request must be admitted for.
    """
    fields.known(at, entry, ("name", "description", schema, "strict"))
    name = fields.text(f"{at}.name", entry.get("name"))
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{at}.name must be 1 to 64 of a-z, A-Z, 0-9, '_' and '-'", param=f"{at}.name")
    found: dict[str, Any] = {"name": name}
    if entry.get("description") is not None:
        found["description"] = fields.text(f"{at}.description", entry["description"])
    if entry.get("strict") is not None:
        fields.boolean(f"{at}.strict", entry["strict"])
    where = f"{at}.{schema}"
    parameters = _NOTHING if entry.get(schema) is None else fields.mapping(where, entry[schema])

    def refusal(why: str) -> RouterError:
        return InvalidRequest(f"{where} is no schema that can be enforced: {why}"[:400], param=where)

    try:
        spelled = orjson.dumps(parameters)
    except orjson.JSONEncodeError as error:
        raise refusal(str(error)) from None
    if len(spelled) > MAX_BYTES:
        raise refusal(f"{len(spelled)} bytes, more than {MAX_BYTES}")
    return Function({**found, "parameters": parameters}, ClientSchema(spelled, look=look, refusal=refusal))


def tool_choice(name: str, value: Any) -> str:
    """``auto``, ``required``, ``none`` or ``function:NAME``."""
    if isinstance(value, str) and value in _MODES:
        return value
    entry = fields.mapping(name, value)
    fields.known(name, entry, ("type", "function"))
    inner = entry.get("function")
    if entry.get("type") != "function" or not isinstance(inner, dict) or set(inner) != {"name"}:
        raise UnsupportedParameter("tool_choice must be auto, required, none or one function", param=name)
    return f"function:{fields.text(f'{name}.function.name', inner['name'])}"
