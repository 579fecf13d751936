"""retain: what a tenant's policy lets stay of a question and its answer."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from registry.models import Retention
from router.errors import RetentionUnavailable
from router.retention.kept import Kept
from router.retention.sealed import Text
from router.retention.tenant_keys import TenantKey, TenantKeys
from router.retention.texts import TextLog
from router.tables import Tables

_TRUSTED = 5.0
"""Seconds for which a key is used without asking whether its file was deleted."""


class _Known(NamedTuple):
    key: TenantKey
    until: float


class Retainer:
    """Of one router. Without keys only policies that need none can be kept; others refuse their requests."""

    def __init__(
        self, keys: TenantKeys | None, texts: TextLog | None, *, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._texts = texts
        self._ticks = ticks
        self._known: dict[str, _Known] = {}

    @classmethod
    def beside(
        cls,
        folder: Path,
        master: bytes | None,
        *,
        segment_bytes: int,
        ticks: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> Self:
        """In a writer's folder; nothing is opened yet. Raises ValueError for a short ``master``."""
        if master is None:
            return cls(None, None, ticks=ticks)
        keys = TenantKeys(folder, writer=folder.name, master=master, entropy=entropy)
        return cls(keys, TextLog(folder, segment_bytes=segment_bytes, entropy=entropy), ticks=ticks)

    async def begin(self, mode: Retention, tenant: str, body: bytes) -> Kept:
        """Before the engine is asked. Raises RetentionUnavailable: nothing is answered that cannot be kept as
        the policy says."""
        if mode is Retention.NONE:
            return Kept(mode, body, None)
        known = self._known.get(tenant)
        if known is None or known.until < self._ticks():
            known = await self._look(tenant)
        return Kept(mode, body, known.key)

    def append(self, record: str, tenant: str, kept: Kept) -> asyncio.Future[bool] | None:
        """The texts, if the policy keeps them. Raises RetentionUnavailable."""
        if kept.mode is not Retention.FULL or kept.key is None:
            return None
        if self._texts is None:
            raise RetentionUnavailable
        return self._texts.append(record, tenant, kept.key, Text(kept.question, kept.answer))

    async def close(self) -> None:
        if self._texts is not None:
            await self._texts.close()

    async def _look(self, tenant: str) -> _Known:
        """The tenant's key as its file says now; a new one where there is none, or none any more."""
        if self._keys is None:
            raise RetentionUnavailable
        try:
            key = await asyncio.to_thread(self._keys.make, tenant)
        except OSError:
            raise RetentionUnavailable from None
        found = self._known[tenant] = _Known(key, self._ticks() + _TRUSTED)
        return found


def plain_digests(tables: Tables, tenant: str) -> bool:
    """Whether a request of ``tenant`` that was refused before its policy was known may leave a plain digest:
    only if no policy of the tenant's routes says otherwise."""
    routing = tables.state.routings.get(tenant)
    for route in routing.routes if routing is not None else ():
        lazy = tables.policies.get(route.policy)
        if lazy is None or lazy.policy.retention is not Retention.DIGESTS:
            return False
    return True
