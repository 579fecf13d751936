"""Appending to the log, in the same transaction as the change that the entry tells of."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from registry.clock import Clock, stamp
from registry.digests import Digest
from registry.errors import InvalidDocument, InvalidInput, LogCorrupt, LogKeyNotInForce, SignatureInvalid
from registry.log.entries import Entry, Head, TipsRoot
from registry.log.merkle import Frontier, leaf_hash
from registry.log.tips import Tip
from registry.models import PublicKey
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
    def log_keys(self) -> Mapping[str, PublicKey]:
        """Those that entries declare, by id."""
        ...

    def append(
        self,
        entry: Entry,
        *,
        leaf: bytes,
        frontier: Frontier,
        completed: tuple[bytes, ...],
        tenant: str | None,
    ) -> None: ...
    def add_head(self, size: int, head: Envelope) -> None: ...
    def tip(self, tenant: str) -> tuple[int | None, Tip]:
        """(its position, None before its first entry; all entries of the tenant so far)."""
        ...

    def put_tip(self, position: int | None, tip: Tip) -> None: ...
    def tips_root(self) -> TipsRoot: ...


class Ledger:
    """Entries of one transaction. Call :meth:`seal` before the commit: an entry without a signed head over it
    is a fault to everybody who verifies the log."""

    def __init__(
        self,
        store: LogStore,
        *,
        signer: Signer,
        clock: Clock,
        actor: str,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        if not actor or len(actor) > 200 or not actor.isprintable():
            raise InvalidInput("an actor is 1 to 200 printable characters", actor=actor[:200])
        self._store = store
        self._signer = signer
        self._successor: Signer | None = None
        self._clock = clock
        self._actor = actor
        self._entropy = entropy
        self._frontier: Frontier | None = None
        self._at = ""
        self._tips: dict[str, tuple[int | None, Tip]] = {}

    @property
    def key(self) -> PublicKey:
        """Of whoever signs."""
        return self._signer.public

    def append(self, kind: str, subject: str, body: Mapping[str, Any], *, tenant: str | None = None) -> Entry:
        """``tenant``: whose entry it is, kept beside the leaf.

        Raises LogCorrupt or LogKeyNotInForce, before anything is written, when the log is not as this
        registry signed it.
        """
        frontier = self._frontier
        if frontier is None:
            frontier = self._frontier = self._opened()
            # Never before the entry ahead of it: clocks are set back, histories are not.
            self._at = max(stamp(self._clock.now()), self._store.last_at())
        entry = Entry(
            index=frontier.size,
            at=self._at,
            actor=self._actor,
            kind=kind,
            subject=subject,
            body=dict(body),
            salt=self._entropy(16).hex(),
        )
        leaf = leaf_hash(entry.canonical())
        completed = frontier.append(leaf)
        self._store.append(entry, leaf=leaf, frontier=frontier, completed=completed, tenant=tenant)
        if tenant is not None:
            position, tip = self._tips.get(tenant) or self._store.tip(tenant)
            self._tips[tenant] = position, tip.after(leaf)
        return entry

    def hand_over(self, successor: Signer) -> None:
        """The head of this transaction is signed by both keys, every later one by ``successor``: the old key
        introduces the new one, and the new one vouches for all that the old one signed."""
        self._successor = successor

    def seal(self) -> Envelope | None:
        """Sign and store the head over all entries; None when nothing was appended."""
        if self._frontier is None:
            return None
        for position, tip in self._tips.values():
            self._store.put_tip(position, tip)
        head = Head(
            kind="tenon.log-head/v2",
            size=self._frontier.size,
            root=root_of(self._frontier),
            at=self._at,
            tenants=self._store.tips_root(),
        )
        envelope = self._signer.sign(LOG_HEAD, head.canonical())
        if self._successor is not None:
            second = self._successor.sign(LOG_HEAD, head.canonical())
            envelope = envelope.model_copy(update={"signatures": (*envelope.signatures, *second.signatures)})
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
        head = self._newest(envelope)
        if (head.size, head.root) != (frontier.size, root_of(frontier)):
            raise LogCorrupt("the log is not as it was signed last: nothing may be appended")
        if head.tenants is not None and head.tenants != self._store.tips_root():
            raise LogCorrupt("the tips of the tenants are not as they were signed last")
        return frontier

    def _newest(self, envelope: Envelope) -> Head:
        """The last signature counts: where two keys signed, the second one is in force from there on."""
        last = envelope.model_copy(update={"signatures": envelope.signatures[-1:]})
        public = self._signer.public
        try:
            return Head.parse(verify(last, payload_type=LOG_HEAD, trusted={public.id: public}, role="log"))
        except (SignatureInvalid, InvalidDocument) as error:
            fault = error.message
        try:
            verify(last, payload_type=LOG_HEAD, trusted=self._store.log_keys(), role="log")
        except SignatureInvalid:
            raise LogCorrupt(f"the newest head is not by this registry's log key: {fault}") from None
        named = last.signatures[0].keyid
        raise LogKeyNotInForce(f"the log is signed by the key {named}, not by this one's {public.id}")


def root_of(frontier: Frontier) -> Digest:
    return Digest(f"sha256:{frontier.root().hex()}")
