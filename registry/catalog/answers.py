"""Writes that may be repeated: the first one with a key is carried out, the others get its answer."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from registry.catalog.errors import IdempotencyInProgress, IdempotencyKeyReused
from registry.clock import Clock, stamp
from registry.digests import Digest
from registry.store.port import Store
from registry.store.tables.answers import Answer

KEPT: Final = timedelta(hours=24)
LEASE: Final = timedelta(seconds=120)
"""A request that was not answered by then was cut off, and the next one is carried out in its place."""


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

    def begin(self, actor: str, key: str, request: Digest) -> Claim | Kept:
        """Raises IdempotencyKeyReused, IdempotencyInProgress."""
        with self._store.read() as rows:  # a replay must not queue with the writers
            kept = self._known(rows.answers.get(actor, key), request)
        if kept is not None:
            return kept
        with self._store.write() as rows:
            kept = self._known(rows.answers.get(actor, key), request)
            if kept is not None:
                return kept
            now = self._clock.now()
            rows.answers.drop_before(stamp(now - KEPT))
            claim = Claim(actor, key, request, stamp(now))
            rows.answers.put(actor, key, Answer(str(request), None, "", "", claim.at))
            return claim

    def finish(self, claim: Claim, *, status: int, headers: str, body: str) -> None:
        """Keep the answer; nothing when the claim lapsed and somebody else took it over."""
        with self._store.write() as rows:
            if self._holds(claim, rows.answers.get(claim.actor, claim.key)):
                answer = Answer(str(claim.request), status, headers, body, claim.at)
                rows.answers.put(claim.actor, claim.key, answer)

    def drop(self, claim: Claim) -> None:
        """Nothing was done: whoever asks again is carried out."""
        with self._store.write() as rows:
            if self._holds(claim, rows.answers.get(claim.actor, claim.key)):
                rows.answers.drop(claim.actor, claim.key)

    def _known(self, known: Answer | None, request: Digest) -> Kept | None:
        now = self._clock.now()
        if known is None or known.at < stamp(now - KEPT):
            return None
        if known.request != request:
            raise IdempotencyKeyReused("this idempotency key was used for another request")
        if known.status is not None:
            return Kept(known.status, known.headers, known.body)
        if known.at > stamp(now - LEASE):
            raise IdempotencyInProgress("the first request with this idempotency key is not answered yet")
        return None

    @staticmethod
    def _holds(claim: Claim, known: Answer | None) -> bool:
        return known is not None and known.status is None and known.at == claim.at
