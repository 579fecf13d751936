"""parse: the messages of a conversation, each field of each read and written anew."""

from typing import Any

from router.errors import InvalidRequest, UnsupportedParameter
from router.surfaces import fields

_SPEAKERS = ("system", "developer", "user", "assistant")
_ROLES = (*_SPEAKERS, "tool")
_IMAGES = tuple(f"data:image/{kind};base64," for kind in ("png", "jpeg", "webp", "gif"))
_SOUNDS = ("wav", "mp3")


def messages(name: str, value: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest("messages must be a list with at least one message", param=name)
    called: list[tuple[str, str]] = []
    found = tuple([_message(name, index, message, called) for index, message in enumerate(value)])
    if called:
        fields.json_objects(called)
    return found


def _message(name: str, index: int, value: Any, called: list[tuple[str, str]]) -> dict[str, Any]:
    """``called``: takes the arguments of calls."""
    # Nearly every message: two fields of ASCII, and no walk.
    if type(value) is dict and len(value) == 2:
        role, said = value.get("role"), value.get("content")
        if role in _SPEAKERS and type(said) is str and said.isascii():
            return {"role": role, "content": said}
    return _read(f"{name}[{index}]", value, called)


def _read(at: str, value: Any, called: list[tuple[str, str]]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{at} must be an object", param=at)
    role = value.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"{at}.role must be one of {', '.join(_ROLES)}", param=f"{at}.role")
    allowed = {"assistant": ("tool_calls", "refusal"), "tool": ("tool_call_id",)}.get(role, ())
    fields.known(at, value, ("role", "content", "name", *allowed))
    message: dict[str, Any] = {"role": role}
    calls = value.get("tool_calls") if role == "assistant" else None
    if calls:
        message["tool_calls"] = _calls(f"{at}.tool_calls", calls, called)
    if value.get("content") is not None or not calls:
        message["content"] = content(f"{at}.content", value.get("content"), media=role == "user")
    if role == "tool":
        message["tool_call_id"] = fields.text(f"{at}.tool_call_id", value.get("tool_call_id"))
    if value.get("name") is not None:
        message["name"] = fields.text(f"{at}.name", value["name"])
    return message


def content(at: str, value: Any, *, media: bool = False) -> str | list[dict[str, Any]]:
    """Text, a list of text parts (joined), or text and media that came inside the request."""
    if not isinstance(value, list):
        return fields.text(at, value)
    parts = [_part(f"{at}[{index}]", part, media=media) for index, part in enumerate(value)]
    if all(part["type"] == "text" for part in parts):
        return "".join([part["text"] for part in parts])
    return parts


def image(at: str, url: Any) -> dict[str, Any]:
    """Only an image that is in the request: for any other address the engine would go and look (SSRF)."""
    text = fields.text(at, url)
    if not text.startswith(_IMAGES) or not text.isascii():
        raise UnsupportedParameter(
            f"{at} must be a data: URL of a PNG, JPEG, WebP or GIF image in base64; nothing is fetched",
            param=at,
        )
    return {"type": "image_url", "image_url": {"url": text}}


def _part(at: str, part: Any, *, media: bool) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and set(part) == {"type", "text"}:
        return {"type": "text", "text": fields.text(at, part["text"])}
    if media and kind == "image_url" and set(part) == {"type", "image_url"}:
        found = fields.mapping(f"{at}.image_url", part["image_url"])
        fields.known(f"{at}.image_url", found, ("url", "detail"))
        return image(f"{at}.image_url.url", found.get("url"))
    if media and kind == "input_audio" and set(part) == {"type", "input_audio"}:
        found = fields.mapping(f"{at}.input_audio", part["input_audio"])
        fields.known(f"{at}.input_audio", found, ("data", "format"))
        if found.get("format") not in _SOUNDS:
            raise UnsupportedParameter(f"{at}.input_audio.format must be wav or mp3", param=at)
        data = fields.text(f"{at}.input_audio.data", found.get("data"))
        return {"type": "input_audio", "input_audio": {"data": data, "format": found["format"]}}
    raise UnsupportedParameter(f"{at} is not a text part or media inside the request", param=at)


def _calls(at: str, value: Any, called: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Of an earlier answer, as the client kept them."""
    if not isinstance(value, list):
        raise InvalidRequest(f"{at} must be a list", param=at)
    found = []
    for index, call in enumerate(value):
        where = f"{at}[{index}]"
        entry = fields.mapping(where, call)
        fields.known(where, entry, ("id", "type", "function"))
        function = fields.mapping(f"{where}.function", entry.get("function"))
        fields.known(f"{where}.function", function, ("name", "arguments"))
        if entry.get("type") != "function":
            raise UnsupportedParameter(f"{where}.type must be 'function'", param=f"{where}.type")
        # vLLM hands the arguments of history to the chat template as an object and fails on any other text.
        arguments = fields.text(f"{where}.function.arguments", function.get("arguments"))
        called.append((f"{where}.function.arguments", arguments))
        found.append(
            {
                "id": fields.text(f"{where}.id", entry.get("id")),
                "type": "function",
                "function": {
                    "name": fields.text(f"{where}.function.name", function.get("name")),
                    "arguments": arguments,
                },
            }
        )
    return found
