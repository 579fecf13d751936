"""parse: the bytes a client sent become a Question, or are refused by name.

An allow-list, because vLLM has fields that kill an engine (``prompt_logprobs`` beside another request),
read another adapter or defeat the cache isolation (``cache_salt``), and gains new ones with each release.
Every value that is passed on was checked here; strings are the only thing that is opaque.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from registry import canonical
from registry.digests import Digest
from registry.errors import InvalidDocument
from router.errors import InvalidRequest, UnsupportedParameter

Check = Callable[[str, Any], Any]
_ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Question:
    digest: Digest
    """Of the bytes as they arrived."""
    model: str
    messages: tuple[Mapping[str, str], ...]
    stream: bool
    include_usage: bool
    choices: int
    temperature: float | None
    max_tokens: int | None
    logprobs: bool
    response_format: Mapping[str, Any] | None
    user: str | None
    """Not passed on; keeps a user with one version while an alias has canaries."""
    options: Mapping[str, Any]
    """Passed on as they are: top_p, stop, seed, penalties, logprobs."""


def parse(body: bytes, *, most_choices: int) -> Question:
    """Raises InvalidRequest (``param`` names the field) or UnsupportedParameter."""
    fields = _decode(body)
    for name in fields:
        if name not in _FIELDS and fields[name] is not None:
            raise UnsupportedParameter(f"the field {name[:64]!r} is not supported", param=name[:64])
    # OpenAI clients may write null for "not given"; only model and messages must be there.
    given = {name: _FIELDS[name](name, value) for name, value in fields.items() if value is not None}
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
        digest=Digest.of(body),
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


def _decode(body: bytes) -> dict[str, Any]:
    try:
        fields = canonical.decode(body)
    except InvalidDocument:
        raise InvalidRequest("the body is not valid JSON, or names a key twice") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("the body must be a JSON object")
    return fields


def _max_tokens(given: Mapping[str, Any]) -> int | None:
    """The new name and the old one mean the same; two different values mean a confused client."""
    new, old = given.get("max_completion_tokens"), given.get("max_tokens")
    if new is not None and old is not None and new != old:
        raise InvalidRequest("max_tokens and max_completion_tokens differ", param="max_tokens")
    found: int | None = new if new is not None else old
    return found


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false", param=name)
    return value


def _integer(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidRequest(f"{name} must be an integer from {low} to {high}", param=name)
        return value

    return check


def _number(low: float, high: float, *, low_excluded: bool = False) -> Check:
    def check(name: str, value: Any) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not fits or (low_excluded and value == low):
            raise InvalidRequest(f"{name} must be a number from {low:g} to {high:g}", param=name)
        return float(value)

    return check


def _text(name: str, value: Any) -> str:
    """Valid Unicode only: JSON can spell half a surrogate pair, which no UTF-8 body can carry on."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string", param=name)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} holds half a surrogate pair", param=name) from None
    return value


def _model(name: str, value: Any) -> str:
    model = _text(name, value)
    if not model:
        raise InvalidRequest("model is empty", param=name)
    return model


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
        message["name"] = _text(f"{at}.name", value["name"])
    return message


def _content(at: str, value: Any) -> str:
    """Text, or a list of text parts (joined). An image part would make the engine fetch a URL."""
    if not isinstance(value, list):
        return _text(at, value)
    parts = []
    for index, part in enumerate(value):
        where = f"{at}[{index}]"
        if not isinstance(part, dict) or set(part) != {"type", "text"} or part["type"] != "text":
            raise UnsupportedParameter(f"{where} is not a text part", param=where)
        parts.append(_text(where, part["text"]))
    return "".join(parts)


def _stop(name: str, value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(s, str) and s for s in stops):
        raise InvalidRequest("stop must be a string or up to four non-empty strings", param=name)
    return [_text(name, stop) for stop in stops]


def _stream_options(name: str, value: Any) -> bool:
    if not isinstance(value, dict):
        raise InvalidRequest("stream_options must be an object", param=name)
    for field in value:
        if field != "include_usage":
            raise UnsupportedParameter(f"{name}.{field[:64]} is not supported", param=f"{name}.{field[:64]}")
    return _boolean(f"{name}.include_usage", value.get("include_usage", False))


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object", param=name)
    return value


def _store(name: str, value: Any) -> bool:
    if _boolean(name, value):
        raise UnsupportedParameter("store: true is not supported; answers are never kept", param=name)
    return False


_FIELDS: Mapping[str, Check] = {
    "model": _model,
    "messages": _messages,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1, low_excluded=True),
    "max_tokens": _integer(1, 1 << 20),
    "max_completion_tokens": _integer(1, 1 << 20),
    "stream": _boolean,
    "stream_options": _stream_options,
    "n": _integer(1, 128),
    "stop": _stop,
    "seed": _integer(-(1 << 63), (1 << 63) - 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "logprobs": _boolean,
    "top_logprobs": _integer(0, 20),
    "response_format": _object,
    # Accepted because clients send them; never passed on.
    "user": _text,
    "metadata": _object,
    "store": _store,
}
_PASSED_ON = ("top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs")
SUPPORTED = tuple(sorted(_FIELDS))
"""For the reference page."""
