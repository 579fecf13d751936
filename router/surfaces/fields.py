"""parse: the checks that fields of every surface share. Each returns the value that may be passed on."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson

from registry import canonical
from registry.feed import uncollected
from router.errors import InvalidRequest, UnsupportedParameter

Check = Callable[[str, Any], Any]


_LARGE = 64 << 10
_MOST_CONTAINERS, _MOST_QUOTES, _MOST_COMMAS = 10_000, 100_000, 320_000
"""Of a large body, outside of its texts. A thousand turns with calls make 5,000 objects and lists and 44,000
quotes, 128 tools of thirty parameters half as many; 300,000 token ids are OpenAI's bound for embeddings. What
is within takes some 20 ms, in which nobody else is served."""


_MANY_ESCAPES = 1 << 18


def decode(body: bytes) -> dict[str, Any]:
    """Strict JSON, every key once. Raises InvalidRequest."""
    if len(body) > _LARGE:
        if not _few_values(body):
            raise InvalidRequest("the body holds too many values")
        with uncollected():  # the collector looks at every container that is made, again and again
            return _decoded(body)
    return _decoded(body)


def _few(body: bytes) -> bool:
    return (
        body.count(b"{") + body.count(b"[") <= _MOST_CONTAINERS
        and body.count(b'"') <= _MOST_QUOTES
        and body.count(b",") <= _MOST_COMMAS
    )


def _few_values(body: bytes) -> bool:
    """Prose and code are full of commas and brackets, and 4 MiB of them no harm. Backslashes are in texts
    alone, so without the escaped ones and the escaped quotes each second piece between quotes is a text."""
    if _few(body):
        return True
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > _MOST_QUOTES:
        return False
    pieces = plain.split(b'"')
    return _few(b'""'.join(pieces[::2]))


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        fields = _once(body)
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest("the body is not valid JSON, or names a key twice") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("the body must be a JSON object")
    return fields


def _once(spelled: bytes) -> Any:
    """Raises ValueError for what is no JSON, numbers beyond floats, half surrogate pairs and a key given
    twice; or TypeError, or RecursionError."""
    found = orjson.loads(spelled)
    # Written again as it came, it named no key twice: bodies of the usual clients are compact, and this costs
    # a tenth of the decoder that counts keys. Only escapes are dearer to write than to read.
    escaped = len(spelled) > _LARGE and spelled.count(b"\\") > _MANY_ESCAPES
    if escaped or orjson.dumps(found) != spelled:
        return _COUNTING.decode(spelled.decode())
    return found


_COUNTING = json.JSONDecoder(object_pairs_hook=canonical.unique)
"""Of what orjson took."""


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
    if sum([len(text) for _, text in texts]) > _LARGE and not _few_values(
        ",".join([text for _, text in texts]).encode()
    ):
        raise InvalidRequest("the arguments of the calls hold too many values", param=texts[0][0])
    for name, text in texts:
        try:
            found = _once(text.encode())
        except (ValueError, TypeError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise InvalidRequest(f"{name} must be the JSON text of an object", param=name)


def service_tier(name: str, value: Any) -> None:
    """There is one; whoever pays for another is told."""
    if value not in ("auto", "default"):
        raise UnsupportedParameter(f"{name} may only be 'auto' or 'default'", param=name)
