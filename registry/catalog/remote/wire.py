"""Calls over HTTP that are made until they are answered, and take effect once."""

import secrets
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from json import dumps
from typing import Any, Final, TypeAlias, TypeVar, cast
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from registry.canonical import decode
from registry.catalog.errors import IdempotencyInProgress
from registry.catalog.remote.errors import AnswerInvalid, RemoteRefused, Unreachable
from registry.catalog.remote.problems import error_of
from registry.errors import InvalidDocument, InvalidInput, InvalidName

T = TypeVar("T")
Query: TypeAlias = Mapping[str, str | int]

PREFIX: Final = "/api/v1"
_MAX_ANSWER: Final = 64 << 20
"""Bytes of a JSON answer: a page has at most 200 items, a manifest is some kB."""
_RETRIED: Final = frozenset({429, 502, 503, 504})
"""Statuses that say "not now" (RFC 9110), from the registry or from a proxy before it."""
_LONGEST_WAIT: Final = 30.0
"""Seconds; a server that asks for more in Retry-After is taken as unreachable for now."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call is tried. The defaults give up after about six seconds of failures."""

    attempts: int = 6
    first: float = 0.2
    """Seconds before the second attempt; doubled with each, up to ``longest``."""
    longest: float = 5.0
    connect: float = 5.0
    answer: float = 60.0
    """Seconds without a byte. Intake of a large adapter takes seconds, not minutes."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises AnswerInvalid: an answer that is no JSON was given by something else."""
        try:
            return decode(self.body)
        except InvalidDocument:
            raise AnswerInvalid("the registry's answer is not JSON") from None


class Wire:
    """One registry's API with one key. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience: Patience | None = None,
        transport: httpx.BaseTransport | None = None,
        verify: Any = True,
        pause: Callable[[float], None] = time.sleep,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """``url`` without ``/api/v1``; ``verify``: True or the ssl context that knows a private CA."""
        if not key.isascii() or not key.isprintable() or not key:
            raise InvalidInput("the key holds characters that no key has")
        self.url = url.rstrip("/")
        self.patience = patience or Patience()
        self._pause = pause
        self._entropy = entropy
        # No proxies and no .netrc from the environment, and no redirects: the key goes to this host only.
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=httpx.Timeout(self.patience.answer, connect=self.patience.connect),
            transport=transport,
            verify=verify,
            trust_env=False,
            follow_redirects=False,
        )

        # Whoever forgets to close it leaves no socket behind: a command's catalog goes with its last line.
        self._closing = weakref.finalize(self, self._client.close)

    def close(self) -> None:
        self._closing()

    def __repr__(self) -> str:
        return f"Wire({self.url!r})"

    def get(self, path: str, query: Query | None = None) -> Any:
        return self.call("GET", path, query=query).json()

    def ask(self, path: str, body: Any) -> Any:
        """A question that is too long for a URL; asking twice is no harm."""
        return self.call("POST", path, json=body, writes=False).json()

    def post(self, path: str, body: Any, *, headers: Mapping[str, str] | None = None) -> Any:
        """A write that a lost answer does not repeat: every attempt carries the same Idempotency-Key."""
        answer = self.call("POST", path, json=body, headers=headers)
        return answer.json() if answer.body else None

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        retry: bool = True,
        writes: bool = True,
    ) -> Answer:
        """The answer, once it is 2xx. Raises the registry's own error, Unreachable or RemoteRefused.

        ``retry`` off: for writes whose repetition the caller must look into first. ``writes`` off: for
        questions, whose answer the registry need not keep.
        """
        sent = dict(headers or {})
        if writes and method not in ("GET", "HEAD"):
            sent["Idempotency-Key"] = self._entropy(16).hex()
        if json is not None:
            content, sent["Content-Type"] = dumps(json).encode(), "application/json"
        elif content is not None:
            sent["Content-Type"] = "application/octet-stream"
        request = self._client.build_request(
            method, f"{self.url}{PREFIX}{path}", params=dict(query or {}), content=content, headers=sent
        )
        attempts = self.patience.attempts if retry else 1
        for attempt in range(1, attempts + 1):
            asked = None
            try:
                answer = self._once(request)
            except Unreachable:
                if attempt == attempts:
                    raise
            else:
                if 200 <= answer.status < 300:
                    return answer
                error = _error(self.url, answer)
                again = answer.status in _RETRIED or isinstance(error, IdempotencyInProgress)
                if not again or attempt == attempts:
                    raise error
                asked = answer.headers.get("Retry-After")
            self._pause(self._wait(attempt, asked))
        raise Unreachable(f"{self.url} was not asked")  # no attempts allowed

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """The bytes of an answer as they come, untransformed. Retrying is for the caller, who keeps them."""
        request = self._client.build_request(
            "GET", f"{self.url}{PREFIX}{path}", headers={"Accept": "*/*", "Accept-Encoding": "identity"}
        )
        try:
            answer = self._client.send(request, stream=True)
            try:
                if answer.status_code != 200:
                    raise _error(self.url, Answer(answer.status_code, answer.headers, _body(answer)))
                yield answer.iter_raw()
            finally:
                answer.close()
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def breathe(self, attempt: int) -> None:
        """Wait before an attempt that the caller makes itself."""
        self._pause(self._wait(attempt, None))

    def _once(self, request: httpx.Request) -> Answer:
        try:
            answer = self._client.send(request, stream=True)
            try:
                return Answer(answer.status_code, answer.headers, _body(answer))
            finally:
                answer.close()
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        said = f" ({error})" if str(error) else ""
        return Unreachable(f"{self.url} does not answer: {type(error).__name__}{said}")

    def _wait(self, attempt: int, asked: str | None) -> float:
        if asked is not None and asked.isdecimal() and float(asked) <= _LONGEST_WAIT:
            return float(asked)
        longest = min(self.patience.first * 2.0 ** (attempt - 1), self.patience.longest)
        # Jitter: clients that failed together must not come back together.
        return longest * (0.5 + self._entropy(1)[0] / 510)


def path(*segments: str) -> str:
    """Segments behind ``/api/v1``, quoted. Raises InvalidName for what would be another path."""
    for segment in segments:
        if segment in ("", ".", ".."):
            raise InvalidName(f"not a valid name: {segment!r}")
    return "".join("/" + quote(segment, safe=":@") for segment in segments)


def read(kind: type[T], value: Any) -> T:
    """``value`` (decoded JSON) as a noun. Raises AnswerInvalid naming what does not fit."""
    try:
        noun: T = _reader(cast("Hashable", kind)).validate_json(dumps(value))
    except ValidationError as error:
        places = ", ".join(".".join(map(str, fault["loc"])) or "all" for fault in error.errors()[:5])
        raise AnswerInvalid(f"the registry's answer is no {kind.__name__}: {places}") from None
    return noun


def member(value: Any, name: str) -> Any:
    """``value[name]`` of an answer. Raises AnswerInvalid."""
    if not isinstance(value, dict) or name not in value:
        raise AnswerInvalid(f"the registry's answer has no {name!r}")
    return value[name]


@lru_cache(maxsize=64)
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _error(url: str, answer: Answer) -> Exception:
    error = error_of(answer.status, answer.body)
    if isinstance(error, RemoteRefused) and answer.status in _RETRIED:
        return Unreachable(f"{url} cannot answer now: {error.message}")
    return error


def _body(answer: httpx.Response) -> bytes:
    body = bytearray()
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > _MAX_ANSWER:
            raise AnswerInvalid(f"the registry's answer is larger than {_MAX_ANSWER >> 20} MiB")
    return bytes(body)
