"""parse: the checks that fields of every surface share. Each returns the value that may be passed on."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import orjson

from registry import canonical
from registry.feed import uncollected
from router.errors import InvalidRequest, UnsupportedParameter

Check = Callable[[str, Any], Any]


_LARGE = 64 << 10
_MOST_BRACKETS, _MOST_QUOTES, _MOST_COMMAS = 200_000, 200_000, 400_000
"""Anywhere in a body, its texts included, but for quotes that are escaped: what orjson reads in some 20 ms.
4 MiB of prose hold 100,000 commas."""
_MOST_CONTAINERS, _MOST_FIELDS, _MOST_LISTED = 10_000, 50_000, 150_000
"""Outside of texts, before anything slower than orjson looks at them. A thousand turns with calls make 5,000
objects and lists with 11,000 fields, 128 tools of thirty parameters 4,500 with 13,000; 131,072 token ids fill
a context of 128 Ki."""
_MANY_ESCAPES = 1 << 18


def decode(body: bytes) -> dict[str, Any]:
    """Strict JSON, every key once. Raises InvalidRequest."""
    if len(body) > _LARGE:
        if (
            body.count(b"{") + body.count(b"[") > _MOST_BRACKETS
            or body.count(b'"') - body.count(rb"\"") > _MOST_QUOTES
            or body.count(b",") > _MOST_COMMAS
        ):
            raise InvalidRequest("the body holds too many values")
        with uncollected():  # the collector looks at every container that is made, again and again
            return _decoded(body)
    return _decoded(body)


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
        if len(body) > _LARGE and not _few(fields):
            raise InvalidRequest("the body holds too many values")
        fields = _once(fields, body, _bounded() if len(body) > _LARGE else _COUNTING)
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest("the body is not valid JSON, or names a key twice") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("the body must be a JSON object")
    return fields


def _few(found: Any) -> bool:
    containers, fields, listed = [found], 0, 0
    for each in containers:  # grows under way
        if type(each) is dict:
            fields += len(each)
            inner: Iterable[Any] = each.values()
        elif type(each) is list:
            listed += len(each)
            inner = each
        else:
            continue
        if fields > _MOST_FIELDS or listed > _MOST_LISTED:
            return False
        containers += [value for value in inner if type(value) is dict or type(value) is list]
        if len(containers) > _MOST_CONTAINERS:
            return False
    return True


def _once(found: Any, spelled: bytes, counting: json.JSONDecoder) -> Any:
    """What orjson ``found``, if it names each key once. Raises ValueError, TypeError, RecursionError."""
    # Written again as it came, it named no key twice: bodies of the usual clients are compact, and this costs
    # a tenth of the decoder that counts keys. Only escapes are dearer to write than to read.
    escaped = len(spelled) > _LARGE and spelled.count(b"\\") > _MANY_ESCAPES
    if escaped or orjson.dumps(found) != spelled:
        return counting.decode(spelled.decode())
    return found


def _bounded() -> json.JSONDecoder:
    """For what ``_few`` has seen: more objects than it let through are behind a key given twice."""
    objects = count(1)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if next(objects) > _MOST_CONTAINERS:
            raise ValueError("a key appears twice")
        return canonical.unique(pairs)

    return json.JSONDecoder(object_pairs_hook=unique)


_COUNTING = json.JSONDecoder(object_pairs_hook=canonical.unique)
"""Of what orjson took: no half surrogate pairs, no numbers beyond floats."""


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false", param=name)
    return value


def integer(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidRequest(f"{name} must be an integer from {low} to {high}", param=name)
        return value

    return check


def number(low: float, high: float, *, low_excluded: bool = False) -> Check:
    def check(name: str, value: Any) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not fits or (low_excluded and value == low):
            raise InvalidRequest(f"{name} must be a number from {low:g} to {high:g}", param=name)
        return float(value)

    return check


def text(name: str, value: Any) -> str:
    """Valid Unicode only: JSON can spell half a surrogate pair, which no UTF-8 body can carry on."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string", param=name)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidRequest(f"{name} holds half a surrogate pair", param=name) from None
    return value


def model(name: str, value: Any) -> str:
    model = text(name, value)
    if not model:
        raise InvalidRequest("model is empty", param=name)
    return model


def stop(name: str, value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(s, str) and s for s in stops):
        raise InvalidRequest("stop must be a string or up to four non-empty strings", param=name)
    return [text(name, stop) for stop in stops]


def mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object", param=name)
    return value


def writable(name: str, value: Any) -> Any:
    """For what an answer repeats. JSON can spell what no answer can: half surrogate pairs, integers beyond 64
    bits."""
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise InvalidRequest(f"{name} holds a number or a text that is out of range", param=name) from None
    return value


def store(name: str, value: Any) -> bool:
    if boolean(name, value):
        raise UnsupportedParameter("store: true is not supported; answers are never kept", param=name)
    return False


def known(at: str, value: Mapping[str, Any], names: Collection[str]) -> None:
    """Raises UnsupportedParameter for a field that is not one of ``names`` and not null."""
    for field in value:
        if field not in names and value[field] is not None:
            raise UnsupportedParameter(f"{at}.{field[:64]} is not supported", param=f"{at}.{field[:64]}")


def allowed(sent: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Every field checked; OpenAI's clients may write null for "not given"."""
    if not sent.keys() <= checks.keys():
        for name in sent:
            if name not in checks and sent[name] is not None:
                raise UnsupportedParameter(f"the field {name[:64]!r} is not supported", param=name[:64])
    return {name: checks[name](name, value) for name, value in sent.items() if value is not None}


def required(given: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if name not in given:
            raise InvalidRequest(f"{name} is missing", param=name)


def json_objects(texts: Sequence[tuple[str, str]]) -> None:
    """Texts that spell objects, with their names; all of a request, whose bounds hold for them together."""
    found = [_object(name, text) for name, text in texts]
    large = sum([len(text) for _, text in texts]) > _LARGE
    if large and not _few(found):
        raise InvalidRequest("the arguments of the calls hold too many values", param=texts[0][0])
    counting = _bounded() if large else _COUNTING
    for (name, text), value in zip(texts, found, strict=True):
        try:
            _once(value, text.encode(), counting)
        except (ValueError, TypeError, RecursionError):
            raise _no_object(name) from None


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _no_object(name)
    return found


def _no_object(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name} must be the JSON text of an object", param=name)


def service_tier(name: str, value: Any) -> None:
    """There is one; whoever pays for another is told."""
    if value not in ("auto", "default"):
        raise UnsupportedParameter(f"{name} may only be 'auto' or 'default'", param=name)
