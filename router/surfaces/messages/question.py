"""parse: a Messages request, as the chat question that it is."""

from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequest, UnsupportedParameter
from router.surfaces import fields, tools
from router.surfaces.chat import question as chat
from router.surfaces.fields import Check
from router.surfaces.messages.blocks import conversation, text_of
from router.surfaces.surface import Question

_SEQUENCES = 4


def parse(body: bytes) -> Question:
    """Raises InvalidRequest, UnsupportedParameter."""
    given = fields.allowed(fields.decode(body), FIELDS)
    fields.required(given, "model", "messages", "max_tokens")
    said = given.get("system")
    opening = [{"role": "system", "content": said}] if said else []
    options = {name: given[name] for name in PASSED_ON if name in given}
    stops = given.get("stop_sequences")
    return Question(
        model=given["model"],
        messages=[*opening, *given["messages"]],
        stream=given.get("stream", False),
        include_usage=True,
        temperature=given.get("temperature"),
        max_tokens=given["max_tokens"],
        user=given.get("metadata"),
        options={**options, "stop": stops} if stops else options,
        tools=_tools(given),
    )


def _tools(given: Mapping[str, Any]) -> tools.Tools | None:
    choice, parallel = given.get("tool_choice", ("auto", True))
    listed = given.get("tools")
    if not listed:
        if choice not in ("auto", "none"):
            raise InvalidRequest("tool_choice needs tools", param="tool_choice")
        return None
    return tools.chosen(listed, choice, parallel=parallel)


def _functions(name: str, value: Any) -> list[tools.Function]:
    found = []
    for index, entry in enumerate(tools.listed(name, value)):
        at = f"{name}[{index}]"
        if entry.get("type", "custom") != "custom":
            raise UnsupportedParameter(f"{at}.type must be 'custom'", param=f"{at}.type")
        own = {key: item for key, item in entry.items() if key not in ("type", "cache_control")}
        found.append(tools.function(at, own, schema="input_schema"))
    return found


def _tool_choice(name: str, value: Any) -> tuple[str, bool]:
    """The mode in chat's words, and whether several calls may be made."""
    entry = fields.mapping(name, value)
    fields.known(name, entry, ("type", "name", "disable_parallel_tool_use"))
    kind = entry.get("type")
    mode = {"auto": "auto", "any": "required", "none": "none"}.get(kind if isinstance(kind, str) else "")
    if kind == "tool":
        mode = f"function:{fields.text(f'{name}.name', entry.get('name'))}"
    if mode is None:
        raise InvalidRequest(f"{name}.type must be auto, any, tool or none", param=f"{name}.type")
    single = entry.get("disable_parallel_tool_use")
    return mode, single is None or not fields.boolean(f"{name}.disable_parallel_tool_use", single)


def _metadata(name: str, value: Any) -> str | None:
    entry = fields.mapping(name, value)
    fields.known(name, entry, ("user_id",))
    user = entry.get("user_id")
    return None if user is None else fields.text(f"{name}.user_id", user)


def _thinking(name: str, value: Any) -> None:
    if value != {"type": "disabled"}:
        raise UnsupportedParameter("thinking is not supported", param=name)


def _sequences(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > _SEQUENCES:
        raise InvalidRequest(f"{name} must be a list of at most {_SEQUENCES} texts", param=name)
    for one in value:
        if not fields.text(name, one):
            raise InvalidRequest(f"{name} holds an empty text", param=name)
    return value


FIELDS: Mapping[str, Check] = {
    "model": fields.model,
    "messages": conversation,
    "max_tokens": fields.integer(1, chat.MOST_TOKENS),
    "system": text_of,
    "temperature": fields.number(0, 1),
    "top_p": chat.TOP_P,
    "stop_sequences": _sequences,
    "stream": fields.boolean,
    "tools": _functions,
    "tool_choice": _tool_choice,
    # Accepted because clients send them; never passed on.
    "metadata": _metadata,
    "thinking": _thinking,
}
PASSED_ON = ("top_p",)
IGNORED = ("metadata", "thinking")


def bearer(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """``x-api-key``, where Anthropic's clients put their key, as the one ``Authorization`` there is.

    Beside an ``Authorization`` it is left alone: two credentials are refused as two, not chosen from.
    """
    if not any(name == b"x-api-key" for name, _ in headers):
        return headers
    return [
        (b"authorization", b"Bearer " + value) if name == b"x-api-key" else (name, value)
        for name, value in headers
    ]
