"""The public keys of an identity provider (RFC 7517): fetched, bounded, cached, rotated."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from registry.errors import InvalidDocument
from registry.identity.keysets import BETWEEN, FRESH, STALE, ProviderKey, parse
from server.errors import IdentityProviderUnreachable, SettingsInvalid

_MAX_BYTES: Final = 256 * 1024
_TIMEOUT: Final = 5.0
_WHOLE: Final = 15.0
"""Seconds for all of it: a provider that sends a byte every four would otherwise never be timed out."""

Fetch = Callable[[], bytes]


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


def fetch_url(url: str) -> Fetch:
    """Over HTTPS (plain HTTP only to this machine), without redirects. Raises SettingsInvalid."""
    parts = urlsplit(url)
    local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise SettingsInvalid("the identity provider's keys must come over https")

    def fetch() -> bytes:
        body, begun = bytearray(), time.monotonic()
        with httpx.stream("GET", url, timeout=_TIMEOUT, follow_redirects=False) as answer:
            if answer.status_code != 200:
                raise InvalidDocument(f"the identity provider answered {answer.status_code}")
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > _MAX_BYTES:
                    raise InvalidDocument("the key set is too large")
                if time.monotonic() - begun > _WHOLE:
                    raise InvalidDocument("the key set took too long")
        return bytes(body)

    return fetch


def fetch_file(path: Path) -> Fetch:
    """A file that an administrator keeps up to date, read again like the URL."""
    return path.read_bytes
