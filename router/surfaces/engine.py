"""What every answer of an engine must be: one JSON object that says which adapter it is from."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from router.errors import EngineAnswered, EngineAnswerMismatch, EngineFailed, EngineStopped
from router.metering import Usage, read_usage

_LEGACY = ("text_offset", "token_logprobs", "tokens", "top_logprobs")


def answer(data: bytes, model: str, kind: str) -> dict[str, Any]:
    """A whole answer with ``choices``. Raises EngineFailed, EngineAnswerMismatch."""
    found = read_object(data)
    if "error" in found:
        raise EngineAnswered
    check_model(found, model)
    if found.get("object") != kind or not isinstance(found.get("choices"), list):
        raise EngineFailed
    return found


def event(data: bytes, model: str, kind: str) -> dict[str, Any]:
    """One event of a stream. Raises EngineStopped (error frame), EngineFailed, EngineAnswerMismatch.

    It names no choice twice: its parts are judged by what came before the event.
    """
    found = read_object(data)
    if "error" in found:
        raise EngineStopped
    check_model(found, model)
    choices = found.get("choices")
    if found.get("object") != kind or not isinstance(choices, list):
        raise EngineFailed
    if len(choices) > 1:
        named = [str(entry.get("index")) for entry in choices if isinstance(entry, dict)]
        if len(set(named)) < len(choices):
            raise EngineFailed
    return found


def read_object(data: bytes) -> dict[str, Any]:
    """Raises EngineFailed for anything but a JSON object."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise EngineFailed from None
    if not isinstance(value, dict):
        raise EngineFailed
    return value


def usage_of(data: bytes) -> Usage | None:
    """Of an answer that could be read and was found bad: its tokens were made all the same."""
    return read_usage(read_object(data).get("usage"))


def check_model(found: Mapping[str, Any], expected: str) -> None:
    """Raises EngineAnswerMismatch: the one thing an engine says about who answered must be what we asked."""
    if found.get("model") != expected:
        raise EngineAnswerMismatch


def by_index(listed: Sequence[Any], count: int) -> list[dict[str, Any]]:
    """Exactly the ``count`` entries that were asked for, in order. Raises EngineFailed."""
    if count == len(listed) == 1:
        choice_index(listed[0], 1)
        return list(listed)
    found = {choice_index(entry, count): entry for entry in listed}
    if len(found) != len(listed) or len(found) != count:
        raise EngineFailed
    return [found[index] for index in range(count)]


def choice_index(entry: Any, count: int) -> int:
    """Raises EngineFailed unless it is one of the choices that were asked for."""
    index = entry.get("index") if isinstance(entry, dict) else None
    if type(index) is not int or not 0 <= index < count:
        raise EngineFailed
    return index


def created(found: Mapping[str, Any]) -> int:
    value = found.get("created")
    return value if type(value) is int else 0


def logprobs(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of a chat: OpenAI's form, field by field. Raises EngineFailed for another one."""
    value = entry.get("logprobs")
    if value is None:
        return None
    content = _record(value).get("content")
    return {"content": None if content is None else [_token(token, tops=True) for token in _each(content)]}


def legacy_logprobs(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of a completion: OpenAI's older form, field by field. Raises EngineFailed for another one."""
    value = entry.get("logprobs")
    if value is None:
        return None
    found = _record(value)
    offsets, own, tokens, tops = (found.get(name) for name in _LEGACY)
    good = (
        all(type(offset) is int for offset in _each(offsets))
        and all(_is_number(each) for each in _each(own))
        and all(type(token) is str for token in _each(tokens))
        and all(_is_number(each) for top in _each(tops) if top is not None for each in _record(top).values())
    )
    if not good:
        raise EngineFailed
    return dict(zip(_LEGACY, (offsets, own, tokens, tops), strict=True))


def _token(value: Any, *, tops: bool = False) -> dict[str, Any]:
    given = _record(value)
    token, logprob, raw = given.get("token"), given.get("logprob"), given.get("bytes")
    if type(token) is not str or not _is_number(logprob) or any(type(each) is not int for each in _each(raw)):
        raise EngineFailed
    found = {"token": token, "logprob": logprob, "bytes": raw}
    if tops:
        found["top_logprobs"] = [_token(top) for top in _each(given.get("top_logprobs"))]
    return found


def _is_number(value: Any) -> bool:
    """Or what is none: pydantic writes null for NaN."""
    return value is None or type(value) in (int, float)


def _record(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EngineFailed
    return value


def _each(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise EngineFailed
    return value
