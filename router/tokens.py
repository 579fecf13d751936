"""Tokens of an identity provider as an alternative to keys. The provider is asked in the background and never
while a request waits: neither a provider that is slow nor tokens with made-up key ids hold anybody up."""

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from registry.errors import InvalidDocument, KeyRefused
from registry.identity.keysets import BETWEEN, FRESH, STALE, ProviderKey, parse
from registry.identity.tokens import Issuer
from router.errors import InvalidApiKey, RouterNotReady
from router.tables import Principal

_log = logging.getLogger(__name__)
MOST = 10_000
"""Verified tokens that are remembered: about 5 MB. Verifying one again costs 50 to 100 µs."""

_FIRST_PAUSE = 1.0
"""Seconds; doubled until the provider was heard once, for until then every token is refused."""


class Bearer(NamedTuple):
    """Who showed a valid token."""

    principal: Principal | None
    """None for a platform admin, who is of no tenant."""
    until: float
    """Seconds since the epoch."""


class Tokens:
    """``start`` first: until the provider was heard nobody is known by a token."""

    def __init__(
        self,
        issuer: Issuer,
        fetch: Callable[[], bytes],
        *,
        ticks: Callable[[], float] = time.monotonic,
        fresh: float = FRESH,
        between: float = BETWEEN,
        stale: float = STALE,
        most: int = MOST,
    ) -> None:
        """``fetch``: the key set's bytes, bounded in size and time; called in a thread; may raise."""
        self._issuer = issuer
        self._fetch = fetch
        self._ticks = ticks
        self._fresh, self._between, self._stale = fresh, between, stale
        self._most = most
        self._data = b""
        self._keys: dict[str, ProviderKey] = {}
        self._heard: float | None = None
        self._next = self._ticks()
        """When the provider is asked again."""
        self._wanted = asyncio.Event()
        self._known: dict[bytes, Bearer] = {}
        self._task: asyncio.Task[None] | None = None

    def find(self, token: str, now: float) -> Bearer:
        """Raises InvalidApiKey, RouterNotReady (the provider was not heard for too long)."""
        if self._heard is None or self._ticks() - self._heard > self._stale:
            refusal = RouterNotReady("the identity provider's keys are not known")
            refusal.headers = [(b"retry-after", b"%d" % max(1, math.ceil(self._next - self._ticks())))]
            raise refusal
        try:
            # By its digest: a token is a secret, and a dump of memory should hold few of them.
            digest = hashlib.sha256(token.encode("ascii")).digest()
        except UnicodeEncodeError:
            raise InvalidApiKey from None
        bearer = self._known.get(digest)
        if bearer is None:
            bearer = self._verified(token, now)
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[digest] = bearer
        if bearer.until <= now:
            raise InvalidApiKey
        return bearer

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def _verified(self, token: str, now: float) -> Bearer:
        try:
            claimed = self._issuer.verify(token, self._key, now)
        except KeyRefused:
            raise InvalidApiKey from None
        if claimed.tenant is None:
            return Bearer(None, claimed.until)
        # The actor stands for the key wherever one is named: in records, and as the unit of a canary.
        principal = Principal(claimed.tenant, claimed.actor, claimed.role, claimed.actor)
        return Bearer(principal, claimed.until)

    def _key(self, kid: str) -> ProviderKey | None:
        found = self._keys.get(kid)
        if found is None:
            self._wanted.set()  # the provider may have a new one; whoever shows it must try again
        return found

    async def _follow(self) -> None:
        pause = min(_FIRST_PAUSE, self._between)
        while True:
            self._wanted.clear()  # a key that is missed from here on is asked for right after the pause
            heard = await self._refresh()
            if self._heard is None:
                self._next = self._ticks() + pause
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._between)
                continue
            self._next = self._ticks() + self._between
            await asyncio.sleep(self._between)
            if heard:
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._fresh - self._between)):
                        await self._wanted.wait()

    async def _refresh(self) -> bool:
        try:
            data = await asyncio.to_thread(self._fetch)
            if data != self._data:
                self._keys = parse(data)
                self._data = data
                self._known.clear()  # what a withdrawn key signed ends with it
        except Exception as error:  # of a network that is not ours; what is known counts until stale
            why = error.message if isinstance(error, InvalidDocument) else type(error).__name__
            _log.warning("the identity provider's keys could not be read: %s", why)
            return False
        self._heard = self._ticks()
        return True
