"""The public keys of an identity provider (RFC 7517): fetched, bounded, cached, rotated."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from registry.errors import InvalidDocument
from registry.identity.keysets import BETWEEN, FRESH, STALE, ProviderKey, parse
from server.errors import IdentityProviderUnreachable, SettingsInvalid

PATIENCE: Final = 5.0
"""Seconds for an answer as a whole; a timeout for each read would let a slow provider take for ever."""
WAITING: Final = 4
"""Requests that wait for an answer at once. They hold threads that every other request needs too (starlette
has 40), and anybody can make one wait with a made-up token; all others go on with the keys that are known."""
_MAX_BYTES: Final = 256 * 1024

Fetch = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class _Known:
    keys: dict[str, ProviderKey]
    asked: float


class KeySet:
    """Safe to share between threads. The provider is asked in a thread of its own, by one at a time."""

    def __init__(
        self, fetch: Fetch, *, seconds: Callable[[], float] = time.monotonic, patience: float = PATIENCE
    ) -> None:
        """``patience``: seconds that a request waits for an answer, whatever ``fetch`` does."""
        self._fetch = fetch
        self._seconds = seconds
        self._patience = patience
        self._known: _Known | None = None
        self._tried: float | None = None
        self._asking: threading.Event | None = None
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(WAITING)

    def find(self, kid: str) -> ProviderKey | None:
        """None for a key that the provider is not known to have. Raises IdentityProviderUnreachable."""
        if (known := self._younger(FRESH)) is None or kid not in known.keys:
            self._refresh()
        if (known := self._younger(STALE)) is None:
            raise IdentityProviderUnreachable("the identity provider's keys are not known")
        return known.keys.get(kid)

    def _younger(self, seconds: float) -> _Known | None:
        known = self._known
        return known if known is not None and self._seconds() - known.asked < seconds else None

    def _refresh(self) -> None:
        """Waits for news if it may, and not for long."""
        answered = self._question()
        if answered is not None and self._waiting.acquire(blocking=False):
            try:
                answered.wait(self._patience)
            finally:
                self._waiting.release()

    def _question(self) -> threading.Event | None:
        """The one that is being asked, a new one if it is time, or None."""
        with self._lock:
            if self._asking is not None:
                return self._asking
            now = self._seconds()
            if self._tried is not None and now - self._tried < BETWEEN:
                return None
            self._tried = now
            answered = self._asking = threading.Event()
        # A daemon: a name server or a disk that hangs must not keep the control plane from stopping.
        threading.Thread(target=self._ask, args=(now, answered), name="jwks", daemon=True).start()
        return answered

    def _ask(self, now: float, answered: threading.Event) -> None:
        try:
            # What is known stays believed until it is STALE.
            with suppress(httpx.HTTPError, OSError, InvalidDocument):
                self._known = _Known(parse(self._fetch()), now)
        finally:
            with self._lock:
                self._asking = None
            answered.set()


def fetch_url(url: str, *, patience: float = PATIENCE) -> Fetch:
    """Over HTTPS (plain HTTP only to this machine), without redirects. Raises SettingsInvalid.

    ``patience``: seconds until the last byte must have come.
    """
    parts = urlsplit(url)
    local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise SettingsInvalid("the identity provider's keys must come over https")

    async def read() -> bytes:
        body = bytearray()
        async with (
            asyncio.timeout(patience),  # the one limit that covers connecting, headers and body together
            httpx.AsyncClient(timeout=patience, follow_redirects=False) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code != 200:
                raise InvalidDocument(f"the identity provider answered {answer.status_code}")
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _MAX_BYTES:
                    raise InvalidDocument("the key set is too large")
        return bytes(body)

    return lambda: asyncio.run(read())


def fetch_file(path: Path) -> Fetch:
    """A file that an administrator keeps up to date, read again like the URL."""
    return path.read_bytes
