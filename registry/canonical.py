"""Canonical JSON (RFC 8785): one spelling per value, so that bytes can be identity."""

import json
import math
from typing import Any, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.digests import Digest
from registry.errors import InvalidDocument

_EXACT = 2.0**53


def encode(value: Any) -> bytes:
    """``value`` (JSON types only) as RFC 8785 bytes.

    Raises :class:`InvalidDocument` for NaN, infinities, integers beyond 2**53 and non-JSON types. Whole
    floats beyond 2**53 are refused too: they would be written as integers that no reader takes back.
    """
    try:
        _refuse_huge(value)
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidDocument(f"not representable as canonical JSON: {error}") from None


def _refuse_huge(value: Any) -> None:
    if isinstance(value, float):
        if _EXACT <= abs(value) < 1e21:
            raise InvalidDocument(
                f"not representable as canonical JSON: {value!r} would read back as an integer"
            )
    elif isinstance(value, dict):
        for item in value.values():
            _refuse_huge(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_huge(item)


def decode(data: bytes | str) -> Any:
    """Strict JSON: duplicate keys, NaN, infinities and broken UTF-8 raise :class:`InvalidDocument`."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return _STRICT.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"not valid JSON: {error}") from None


def digest_of(value: Any) -> Digest:
    return Digest.of(encode(value))


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``object_pairs_hook``. Raises ValueError for a key given twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} appears twice")
    return result


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # 1e999 is JSON, and no number that anything can compare
        raise ValueError(f"{text[:40]} is too large")
    return number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_no_constant, parse_float=_finite)
"""Made once: ``json.loads`` makes one a call, which was half the time of a short text."""


def later(default: Any, **bounds: Any) -> Any:
    """A field that documents of before it do not have.

    It is left out of the bytes while it has its default, so that their digests stay what they were.
    """
    return Field(default=default, exclude_if=lambda value: bool(value == default), **bounds)


class Document(BaseModel):
    """A frozen, closed value object whose identity is the digest of its canonical JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def canonical(self) -> bytes:
        return encode(self.model_dump(mode="json", by_alias=True))

    def identity(self) -> Digest:
        """The digest that *is* this value: of its canonical bytes."""
        return Digest.of(self.canonical())

    @classmethod
    def parse(cls, data: bytes | str) -> Self:
        """From JSON bytes; every fault at once, as :class:`InvalidDocument`."""
        return cls.build(decode(data))

    @classmethod
    def build(cls, value: Any) -> Self:
        """From already decoded JSON (lists become tuples, as JSON has no tuples)."""
        try:
            return cls.model_validate_json(json.dumps(value))
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(str(part) for part in fault['loc']) or 'document'}: {fault['msg']}"
                for fault in error.errors(include_url=False)
            )
            raise InvalidDocument(f"not a valid {cls.__name__}: {faults}") from None
