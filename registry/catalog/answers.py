"""Writes that may be repeated: the first one with a key is carried out, the others get its answer."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from registry.catalog.errors import IdempotencyInProgress, IdempotencyKeyReused
from registry.clock import Clock, stamp
from registry.digests import Digest
from registry.store.port import Store

KEPT: Final = timedelta(hours=24)
LEASE: Final = timedelta(seconds=120)
"""A request that was not answered by then was cut off, and the next one is carried out in its place."""

SWEEP: Final = timedelta(hours=1)
"""How often a process drops what is older than ``KEPT``."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right, and the duty, to answer: hand it to ``finish`` or ``drop``."""

    actor: str
    key: str
    request: Digest
    at: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What the first request was answered."""

    status: int
    headers: str
    body: str


class Answers:
    """Beside the log, not in it: a kept answer is no state change. Safe over threads and processes."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._swept = ""

    def begin(self, actor: str, key: str, request: Digest) -> Claim | Kept:
        """Raises IdempotencyKeyReused, IdempotencyInProgress."""
        now = self._clock.now()
        claim = Claim(actor, key, request, stamp(now))
        self._sweep(now)
        with self._store.aside() as rows:
            times = {"at": claim.at, "lapsed": stamp(now - LEASE), "expired": stamp(now - KEPT)}
            if rows.answers.claim(actor, key, str(request), **times):
                return claim
            known = rows.answers.get(actor, key)
        if known is not None and known.request != request:
            raise IdempotencyKeyReused("this idempotency key was used for another request")
        if known is None or known.status is None:
            raise IdempotencyInProgress("the first request with this idempotency key is not answered yet")
        return Kept(known.status, known.headers, known.body)

    def finish(self, claim: Claim, *, status: int, headers: str, body: str) -> None:
        """Keep the answer; nothing when the claim lapsed and somebody else took it over."""
        with self._store.aside() as rows:
            rows.answers.answer(claim.actor, claim.key, claim.at, status=status, headers=headers, body=body)

    def drop(self, claim: Claim) -> None:
        """Nothing was done: whoever asks again is carried out."""
        with self._store.aside() as rows:
            rows.answers.drop(claim.actor, claim.key, claim.at)

    def _sweep(self, now: datetime) -> None:
        if self._swept > stamp(now - SWEEP):
            return
        self._swept = stamp(now)
        with self._store.aside() as rows:
            rows.answers.drop_before(stamp(now - KEPT))
