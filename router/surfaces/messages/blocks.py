"""parse: Anthropic's messages and their blocks, as chat messages."""

from collections.abc import Mapping
from typing import Any

import orjson

from router.errors import InvalidRequest, UnsupportedParameter
from router.surfaces import fields
from router.surfaces.chat import messages


def conversation(name: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"{name} must be a list with at least one message", param=name)
    found: list[dict[str, Any]] = []
    for index, message in enumerate(value):
        at = f"{name}[{index}]"
        entry = fields.mapping(at, message)
        fields.known(at, entry, ("role", "content"))
        role, content = entry.get("role"), entry.get("content")
        if role not in ("user", "assistant"):
            raise InvalidRequest(f"{at}.role must be user or assistant", param=f"{at}.role")
        if not isinstance(content, list):
            found.append({"role": role, "content": fields.text(f"{at}.content", content)})
        elif role == "user":
            found += _user(f"{at}.content", content)
        else:
            found.append(_assistant(f"{at}.content", content))
    return found


def text_of(name: str, value: Any) -> str:
    """A text, or text blocks."""
    if not isinstance(value, list):
        return fields.text(name, value)
    return "".join(
        [_text(f"{name}[{index}]", fields.mapping(name, block)) for index, block in enumerate(value)]
    )


def _user(at: str, blocks: list[Any]) -> list[dict[str, Any]]:
    """Results of tools are messages of their own, before the rest of the turn."""
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        where = f"{at}[{index}]"
        entry = fields.mapping(where, block)
        kind = entry.get("type")
        if kind == "text":
            parts.append({"type": "text", "text": _text(where, entry)})
        elif kind == "image":
            parts.append(_image(where, entry))
        elif kind == "tool_result":
            fields.known(where, entry, ("type", "tool_use_id", "content", "is_error", "cache_control"))
            text = text_of(f"{where}.content", entry["content"]) if entry.get("content") else ""
            called = fields.text(f"{where}.tool_use_id", entry.get("tool_use_id"))
            results.append({"role": "tool", "tool_call_id": called, "content": text})
        else:
            raise UnsupportedParameter(f"{where} is of a type that is not supported", param=f"{where}.type")
    if not parts:
        if not results:
            raise InvalidRequest(f"{at} is empty", param=at)
        return results
    return [*results, {"role": "user", "content": messages.content(at, parts, media=True)}]


def _assistant(at: str, blocks: list[Any]) -> dict[str, Any]:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        where = f"{at}[{index}]"
        entry = fields.mapping(where, block)
        if entry.get("type") == "text":
            texts.append(_text(where, entry))
        elif entry.get("type") == "tool_use":
            fields.known(where, entry, ("type", "id", "name", "input", "cache_control", "caller"))
            arguments = fields.mapping(f"{where}.input", entry.get("input"))
            function = {
                "name": fields.text(f"{where}.name", entry.get("name")),
                "arguments": _written(f"{where}.input", arguments),
            }
            called = fields.text(f"{where}.id", entry.get("id"))
            calls.append({"id": called, "type": "function", "function": function})
        else:
            raise UnsupportedParameter(f"{where} is of a type that is not supported", param=f"{where}.type")
    message: dict[str, Any] = {"role": "assistant"}
    if texts or not calls:
        message["content"] = "".join(texts)
    return {**message, "tool_calls": calls} if calls else message


def _written(at: str, value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # half a surrogate pair, or a number beyond 64 bits
        raise InvalidRequest(f"{at} cannot be passed on as JSON", param=at) from None


def _text(at: str, entry: Mapping[str, Any]) -> str:
    # cache_control asks for what the engine does anyway, for this tenant alone.
    fields.known(at, entry, ("type", "text", "cache_control"))
    if entry.get("type") != "text":
        raise UnsupportedParameter(f"{at} is not a text block", param=f"{at}.type")
    return fields.text(f"{at}.text", entry.get("text"))


def _image(at: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    fields.known(at, entry, ("type", "source", "cache_control"))
    source = fields.mapping(f"{at}.source", entry.get("source"))
    fields.known(f"{at}.source", source, ("type", "media_type", "data"))
    if source.get("type") != "base64":
        raise UnsupportedParameter(
            f"{at}.source.type must be base64; nothing is fetched", param=f"{at}.source"
        )
    kind, data = (fields.text(f"{at}.source", source.get(name)) for name in ("media_type", "data"))
    return messages.image(f"{at}.source", f"data:{kind};base64,{data}")
