"""parse: the items of a Responses input, as chat messages."""

from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequest, UnsupportedParameter
from router.surfaces import fields
from router.surfaces.chat import messages

_ROLES = ("user", "assistant", "system", "developer")


def conversation(name: str, items: list[Any]) -> list[dict[str, Any]]:
    if not items:
        raise InvalidRequest(f"{name} must hold at least one item", param=name)
    found: list[dict[str, Any]] = []
    called: list[tuple[str, str]] = []
    for index, item in enumerate(items):
        at = f"{name}[{index}]"
        entry = fields.mapping(at, item)
        kind = entry.get("type", "message")
        if kind == "message":
            found.append(_message(at, entry))
        elif kind == "function_call":
            call = _call(at, entry)
            called.append((f"{at}.arguments", call["function"]["arguments"]))
            # Calls of one turn are one message to a chat template.
            if found and found[-1]["role"] == "assistant":
                found[-1].setdefault("tool_calls", []).append(call)
            else:
                found.append({"role": "assistant", "tool_calls": [call]})
        elif kind == "function_call_output":
            found.append(_output(at, entry))
        else:
            raise UnsupportedParameter(f"{at} is of a type that is not supported", param=f"{at}.type")
    if called:
        fields.json_objects(called)
    return found


def _message(at: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    # id, status and phase come back from an earlier answer; nothing was kept under them.
    fields.known(at, entry, ("type", "role", "content", "id", "status", "phase"))
    role = entry.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"{at}.role must be one of {', '.join(_ROLES)}", param=f"{at}.role")
    content = entry.get("content")
    if isinstance(content, list):
        content = [_part(f"{at}.content[{index}]", part) for index, part in enumerate(content)]
    return {"role": role, "content": messages.content(f"{at}.content", content, media=role == "user")}


def _part(at: str, part: Any) -> dict[str, Any]:
    """In chat's words; ``messages.content`` has the last word on it."""
    entry = fields.mapping(at, part)
    kind = entry.get("type")
    if kind in ("input_text", "output_text"):
        fields.known(at, entry, ("type", "text", "annotations", "logprobs"))
        return {"type": "text", "text": entry.get("text")}
    if kind == "input_image":
        fields.known(at, entry, ("type", "image_url", "detail"))
        return {"type": "image_url", "image_url": {"url": entry.get("image_url")}}
    raise UnsupportedParameter(f"{at} is of a type that is not supported", param=f"{at}.type")


def _call(at: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    fields.known(at, entry, ("type", "call_id", "name", "arguments", "id", "status"))
    arguments = fields.text(f"{at}.arguments", entry.get("arguments"))
    return {
        "id": fields.text(f"{at}.call_id", entry.get("call_id")),
        "type": "function",
        "function": {"name": fields.text(f"{at}.name", entry.get("name")), "arguments": arguments},
    }


def _output(at: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    fields.known(at, entry, ("type", "call_id", "output", "id", "status"))
    return {
        "role": "tool",
        "tool_call_id": fields.text(f"{at}.call_id", entry.get("call_id")),
        "content": fields.text(f"{at}.output", entry.get("output")),
    }
