"""parse: the bytes a client sent become a Question, or are refused by name.

An allow-list, because vLLM has fields that kill an engine (``prompt_logprobs`` beside another request),
read another adapter or defeat the cache isolation (``cache_salt``), and gains new ones with each release.
Every value that is passed on was checked here; strings are the only thing that is opaque.
"""

from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequest, UnsupportedParameter
from router.surfaces import fields
from router.surfaces.fields import Check
from router.surfaces.surface import Question

_ROLES = ("system", "developer", "user", "assistant")


def parse(body: bytes, *, most_choices: int) -> Question:
    """Raises InvalidRequest (``param`` names the field) or UnsupportedParameter."""
    sent = fields.decode(body)
    for name in sent:
        if name not in _FIELDS and sent[name] is not None:
            raise UnsupportedParameter(f"the field {name[:64]!r} is not supported", param=name[:64])
    # OpenAI clients may write null for "not given"; only model and messages must be there.
    given = {name: _FIELDS[name](name, value) for name, value in sent.items() if value is not None}
    for name in ("model", "messages"):
        if name not in given:
            raise InvalidRequest(f"{name} is missing", param=name)
    choices = given.get("n", 1)
    if choices > most_choices:
        raise InvalidRequest(f"n may be at most {most_choices}", param="n")
    stream = given.get("stream", False)
    if "stream_options" in given and not stream:
        raise InvalidRequest("stream_options needs stream: true", param="stream_options")
    if given.get("top_logprobs") and not given.get("logprobs"):
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    return Question(
        model=given["model"],
        messages=given["messages"],
        stream=stream,
        include_usage=given.get("stream_options", False),
        choices=choices,
        temperature=given.get("temperature"),
        max_tokens=_max_tokens(given),
        logprobs=given.get("logprobs", False),
        response_format=given.get("response_format"),
        user=given.get("user"),
        options={name: given[name] for name in _PASSED_ON if name in given},
    )


def _max_tokens(given: Mapping[str, Any]) -> int | None:
    """The new name and the old one mean the same; two different values mean a confused client."""
    new, old = given.get("max_completion_tokens"), given.get("max_tokens")
    if new is not None and old is not None and new != old:
        raise InvalidRequest("max_tokens and max_completion_tokens differ", param="max_tokens")
    found: int | None = new if new is not None else old
    return found


def _messages(name: str, value: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest("messages must be a list with at least one message", param=name)
    return tuple(_message(f"{name}[{index}]", message) for index, message in enumerate(value))


def _message(at: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{at} must be an object", param=at)
    for field in value:
        if field not in ("role", "content", "name") and value[field] is not None:
            raise UnsupportedParameter(f"{at}.{field[:64]} is not supported", param=f"{at}.{field[:64]}")
    role = value.get("role")
    if role not in _ROLES:
        raise InvalidRequest(f"{at}.role must be one of {', '.join(_ROLES)}", param=f"{at}.role")
    message = {"role": role, "content": _content(f"{at}.content", value.get("content"))}
    if value.get("name") is not None:
        message["name"] = fields.text(f"{at}.name", value["name"])
    return message


def _content(at: str, value: Any) -> str:
    """Text, or a list of text parts (joined). An image part would make the engine fetch a URL."""
    if not isinstance(value, list):
        return fields.text(at, value)
    parts = []
    for index, part in enumerate(value):
        where = f"{at}[{index}]"
        if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] != "text":
            raise UnsupportedParameter(f"{where} is not a text part", param=where)
        parts.append(fields.text(where, part["text"]))
    return "".join(parts)


def _stream_options(name: str, value: Any) -> bool:
    if not isinstance(value, dict):
        raise InvalidRequest("stream_options must be an object", param=name)
    for field in value:
        if field != "include_usage":
            raise UnsupportedParameter(f"{name}.{field[:64]} is not supported", param=f"{name}.{field[:64]}")
    return fields.boolean(f"{name}.include_usage", value.get("include_usage", False))


_FIELDS: Mapping[str, Check] = {
    "model": fields.model,
    "messages": _messages,
    "temperature": fields.number(0, 2),
    "top_p": fields.number(0, 1, low_excluded=True),
    "max_tokens": fields.integer(1, 1 << 20),
    "max_completion_tokens": fields.integer(1, 1 << 20),
    "stream": fields.boolean,
    "stream_options": _stream_options,
    "n": fields.integer(1, 128),
    "stop": fields.stop,
    "seed": fields.integer(-(1 << 63), (1 << 63) - 1),
    "presence_penalty": fields.number(-2, 2),
    "frequency_penalty": fields.number(-2, 2),
    "logprobs": fields.boolean,
    "top_logprobs": fields.integer(0, 20),
    "response_format": fields.mapping,
    # Accepted because clients send them; never passed on.
    "user": fields.text,
    "metadata": fields.mapping,
    "store": fields.store,
}
_PASSED_ON = ("top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs")
SUPPORTED = tuple(sorted(_FIELDS))
"""For the reference page."""
