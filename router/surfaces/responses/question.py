"""parse: a Responses request, as the chat question that it is."""

from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequest, UnsupportedParameter
from router.surfaces import fields, tools
from router.surfaces.chat import question as chat
from router.surfaces.fields import Check
from router.surfaces.responses.items import conversation
from router.surfaces.surface import Question

_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512


def parse(body: bytes) -> Question:
    """Raises InvalidRequest, UnsupportedParameter."""
    given = fields.allowed(fields.decode(body), FIELDS)
    fields.required(given, "model", "input")
    said = given.get("instructions")
    opening = [{"role": "system", "content": said}] if said else []
    return Question(
        model=given["model"],
        messages=[*opening, *given["input"]],
        stream=given.get("stream", False),
        include_usage=True,  # the last event of every stream carries it
        temperature=given.get("temperature"),
        max_tokens=given.get("max_output_tokens"),
        tokens_field="max_output_tokens",
        response_format=given["text"][1] if "text" in given else None,
        user=given.get("user"),
        options={"top_p": given["top_p"]} if "top_p" in given else {},
        tools=_tools(given),
        echo=_echo(given),
    )


def _tools(given: Mapping[str, Any]) -> tools.Tools | None:
    listed = given.get("tools")
    flat = {**given, "tools": [entry for entry, _ in listed]} if listed else given
    return tools.read_tools(flat)


def _echo(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a Response says of its request."""
    choice = given.get("tool_choice", "auto")
    return {
        "instructions": given.get("instructions"),
        "max_output_tokens": given.get("max_output_tokens"),
        "metadata": given.get("metadata", {}),
        "parallel_tool_calls": given.get("parallel_tool_calls", True),
        "temperature": given.get("temperature"),
        "text": given["text"][0] if "text" in given else {"format": {"type": "text"}},
        "tool_choice": {"type": "function", "name": choice[9:]} if choice.startswith("function:") else choice,
        "tools": [entry for _, entry in given.get("tools", ())],
        "top_p": given.get("top_p"),
    }


def _functions(name: str, value: Any) -> list[tuple[tools.Function, dict[str, Any]]]:
    """Each, and as the answer repeats it. Only functions: the other tools of this API
    are things that OpenAI's servers do."""
    found = []
    for index, entry in enumerate(tools.listed(name, value)):
        at = f"{name}[{index}]"
        if entry.get("type") != "function":
            raise UnsupportedParameter(f"{at}.type must be 'function'", param=f"{at}.type")
        function = tools.function(at, {key: item for key, item in entry.items() if key != "type"})
        found.append((function, {"type": "function", "description": None, **function.told, "strict": True}))
    return found


def _tool_choice(name: str, value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"type", "name"} and value["type"] == "function":
        return f"function:{fields.text(f'{name}.name', value['name'])}"
    return tools.tool_choice(name, value)


def _text(name: str, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """As the answer repeats it, and as ``response_format``."""
    text = fields.mapping(name, value)
    fields.known(name, text, ("format",))
    asked = fields.mapping(f"{name}.format", text.get("format") or {"type": "text"})
    fields.writable(f"{name}.format", asked)
    fields.known(f"{name}.format", asked, ("type", "name", "schema", "strict", "description"))
    kind = asked.get("type")
    for described in ("name", "description"):
        if asked.get(described) is not None:
            fields.text(f"{name}.format.{described}", asked[described])
    if kind != "json_schema":
        return {"format": asked}, {"type": kind}
    inner = {key: item for key, item in asked.items() if key != "type"}
    return {"format": asked}, {"type": kind, "json_schema": inner}


def _metadata(name: str, value: Any) -> dict[str, str]:
    """OpenAI's bounds."""
    given = fields.mapping(name, value)
    if len(given) > _MOST_PAIRS:
        raise InvalidRequest(f"{name} may hold {_MOST_PAIRS} pairs", param=name)
    for key, item in given.items():
        if len(fields.text(name, key)) > _LONGEST_KEY or len(fields.text(name, item)) > _LONGEST_VALUE:
            raise InvalidRequest(f"{name} holds a key or a value that is too long", param=name)
    return given


def _only(*accepted: Any) -> Check:
    def check(name: str, value: Any) -> None:
        if not any(value == one and type(value) is type(one) for one in accepted):
            raise UnsupportedParameter(f"{name} may only be {accepted[0]!r} here", param=name)

    return check


def _never(name: str, value: Any) -> None:
    if fields.boolean(name, value):
        raise UnsupportedParameter(f"{name}: true is not supported; answers are never kept", param=name)


def _stream_options(name: str, value: Any) -> None:
    options = fields.mapping(name, value)
    fields.known(name, options, ("include_obfuscation",))


def _input(name: str, value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return conversation(name, value)
    if not value:
        raise InvalidRequest("input is empty", param=name)
    return [{"role": "user", "content": fields.text(name, value)}]


FIELDS: Mapping[str, Check] = {
    "model": fields.model,
    "input": _input,
    "instructions": fields.text,
    "max_output_tokens": fields.integer(1, chat.MOST_TOKENS),
    "temperature": chat.TEMPERATURE,
    "top_p": chat.TOP_P,
    "stream": fields.boolean,
    "text": _text,
    "tools": _functions,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": fields.boolean,
    # Accepted because clients send them; never passed on.
    "user": fields.text,
    "metadata": _metadata,
    "store": fields.store,
    "background": _never,
    "include": _only([]),
    "truncation": _only("disabled"),
    "service_tier": fields.service_tier,
    "stream_options": _stream_options,
    "prompt_cache_key": fields.text,
    "safety_identifier": fields.text,
}
PASSED_ON = ("top_p",)
IGNORED = (
    "user", "metadata", "store", "background", "include", "truncation", "service_tier", "stream_options",
    "prompt_cache_key", "safety_identifier",
)  # fmt: skip
