"""Appending to the log, in the same transaction as the change that the entry tells of."""

from collections.abc import Mapping
from typing import Any, Protocol

from registry.clock import Clock, stamp
from registry.digests import Digest
from registry.errors import InvalidDocument, InvalidInput, LogCorrupt, SignatureInvalid
from registry.log.entries import Entry, Head
from registry.log.merkle import Frontier, leaf_hash
from registry.signing.envelope import Envelope, verify
from registry.signing.keys import Signer
from registry.signing.types import LOG_HEAD


class LogStore(Protocol):
    """Where entries are kept; every method works within one open transaction."""

    def frontier(self) -> Frontier:
        """Raises LogCorrupt when it does not fit the entries."""
        ...

    def last_at(self) -> str: ...
    def last_head(self) -> Envelope | None: ...
    def append(self, entry: Entry, *, leaf: bytes, frontier: Frontier) -> None: ...
    def add_head(self, size: int, head: Envelope) -> None: ...


class Ledger:
    """Entries of one transaction. Call :meth:`seal` before the commit: an entry without a signed head over it
    is a fault to everybody who verifies the log."""

    def __init__(self, store: LogStore, *, signer: Signer, clock: Clock, actor: str) -> None:
        if not actor or len(actor) > 200 or not actor.isprintable():
            raise InvalidInput("an actor is 1 to 200 printable characters", actor=actor[:200])
        self._store = store
        self._signer = signer
        self._clock = clock
        self._actor = actor
        self._frontier: Frontier | None = None
        self._at = ""

    def append(self, kind: str, subject: str, body: Mapping[str, Any]) -> Entry:
        """Raises LogCorrupt, before anything is written, when the log is not as this registry signed it."""
        frontier = self._frontier
        if frontier is None:
            frontier = self._frontier = self._opened()
            # Never before the entry ahead of it: clocks are set back, histories are not.
            self._at = max(stamp(self._clock.now()), self._store.last_at())
        entry = Entry(
            index=frontier.size, at=self._at, actor=self._actor, kind=kind, subject=subject, body=dict(body)
        )
        leaf = leaf_hash(entry.canonical())
        frontier.append(leaf)
        self._store.append(entry, leaf=leaf, frontier=frontier)
        return entry

    def seal(self) -> Envelope | None:
        """Sign and store the head over all entries; None when nothing was appended."""
        if self._frontier is None:
            return None
        head = Head(size=self._frontier.size, root=root_of(self._frontier), at=self._at)
        envelope = self._signer.sign(LOG_HEAD, head.canonical())
        self._store.add_head(head.size, envelope)
        return envelope

    def _opened(self) -> Frontier:
        """The stored frontier, if it is what was signed last.

        Otherwise the next head would put our signature under whatever somebody wrote into the file.
        """
        frontier = self._store.frontier()
        envelope = self._store.last_head()
        if envelope is None and frontier.size == 0:
            return frontier
        if envelope is None:
            raise LogCorrupt("the log has entries and no signed head: nothing may be appended")
        public = self._signer.public
        try:
            signed = verify(envelope, payload_type=LOG_HEAD, trusted={public.id: public}, role="log")
            head = Head.parse(signed)
        except (SignatureInvalid, InvalidDocument) as error:
            raise LogCorrupt(f"the newest head is not by this registry's log key: {error.message}") from None
        if (head.size, head.root) != (frontier.size, root_of(frontier)):
            raise LogCorrupt("the log is not as it was signed last: nothing may be appended")
        return frontier


def root_of(frontier: Frontier) -> Digest:
    return Digest(f"sha256:{frontier.root().hex()}")
