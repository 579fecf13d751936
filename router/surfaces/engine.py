"""What every answer of an engine must be: one JSON object that says which adapter it is from."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from router.errors import EngineAnswered, EngineAnswerMismatch, EngineFailed, EngineStopped
from router.metering import Usage, read_usage


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
    """OpenAI's form only."""
    value = entry.get("logprobs")
    if not isinstance(value, dict):
        return None
    content = value.get("content")
    if not isinstance(content, list):
        return {"content": None}
    return {
        "content": [
            {
                **{name: token.get(name) for name in ("token", "logprob", "bytes")},
                "top_logprobs": [
                    {name: top.get(name) for name in ("token", "logprob", "bytes")}
                    for top in token.get("top_logprobs") or ()
                    if isinstance(top, dict)
                ],
            }
            for token in content
            if isinstance(token, dict)
        ]
    }
