"""The public keys of an identity provider (RFC 7517): fetched, bounded, cached, rotated."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from registry.canonical import decode
from registry.errors import InvalidDocument
from server.errors import IdentityProviderUnreachable, SettingsInvalid

FRESH: Final = 300.0
"""Seconds after which the keys are asked for again, so that a key withdrawn by the provider ends here too."""
STALE: Final = 3600.0
"""Seconds that known keys are still believed while the provider does not answer."""
BETWEEN: Final = 30.0
"""Seconds at least between two questions: tokens with made-up key ids must not become load elsewhere."""
_MAX_BYTES: Final = 256 * 1024
_TIMEOUT: Final = 5.0
_LEAST_RSA_BITS: Final = 2048  # RFC 7518, 3.3
_ALGORITHMS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}

Fetch = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class ProviderKey:
    key: Any
    algorithm: str
    """The only one it may be used with, whatever a token says."""


class KeySet:
    """Safe to share between threads; at most one of them asks the provider at a time."""

    def __init__(self, fetch: Fetch, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._keys: dict[str, ProviderKey] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._lock = threading.Lock()

    def find(self, kid: str) -> ProviderKey | None:
        """None for a key that the provider does not have. Raises IdentityProviderUnreachable."""
        if not self._is_younger(FRESH) or kid not in self._keys:
            with self._lock:
                if not self._is_younger(FRESH) or kid not in self._keys:
                    self._refresh()
        if not self._is_younger(STALE):
            raise IdentityProviderUnreachable("the identity provider's keys are not known")
        return self._keys.get(kid)

    def _is_younger(self, seconds: float) -> bool:
        return self._fetched is not None and self._seconds() - self._fetched < seconds

    def _refresh(self) -> None:
        now = self._seconds()
        if self._tried is not None and now - self._tried < BETWEEN:
            return
        self._tried = now
        try:
            keys = parse(self._fetch())
        except (httpx.HTTPError, OSError, InvalidDocument):
            return  # what is known stays believed until it is STALE
        self._keys, self._fetched = keys, now


def parse(data: bytes) -> dict[str, ProviderKey]:
    """Key id -> key, of those that may verify our tokens. Raises InvalidDocument when it is no key set."""
    document = decode(data)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise InvalidDocument("not a JSON web key set")
    keys: dict[str, ProviderKey] = {}
    for item in listed:
        if not isinstance(item, dict) or (found := _usable(item)) is None:
            continue
        if item["kid"] in keys:
            raise InvalidDocument("two keys have one id")
        keys[item["kid"]] = found
    return keys


def _usable(item: dict[str, Any]) -> ProviderKey | None:
    """None for what must not verify: symmetric keys, other curves, encryption keys, short RSA keys."""
    kind, curve = item.get("kty"), item.get("crv")
    algorithm = _ALGORITHMS.get((kind, curve)) if isinstance(kind, str) else None
    if algorithm is None or not isinstance(item.get("kid"), str):
        return None
    if item.get("use", "sig") != "sig" or item.get("alg", algorithm) != algorithm:
        return None
    public = {name: value for name, value in item.items() if name in {"kty", "crv", "n", "e", "x", "y"}}
    try:
        key = jwt.PyJWK(public, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        return None
    return ProviderKey(key, algorithm)


def fetch_url(url: str) -> Fetch:
    """Over HTTPS (plain HTTP only to this machine), without redirects. Raises SettingsInvalid."""
    parts = urlsplit(url)
    local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise SettingsInvalid("the identity provider's keys must come over https")

    def fetch() -> bytes:
        body = bytearray()
        with httpx.stream("GET", url, timeout=_TIMEOUT, follow_redirects=False) as answer:
            if answer.status_code != 200:
                raise InvalidDocument(f"the identity provider answered {answer.status_code}")
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > _MAX_BYTES:
                    raise InvalidDocument("the key set is too large")
        return bytes(body)

    return fetch


def fetch_file(path: Path) -> Fetch:
    """A file that an administrator keeps up to date, read again like the URL."""
    return path.read_bytes
