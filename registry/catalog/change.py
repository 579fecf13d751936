"""One change: an entry, what it does to the tables, and the signed head, all or nothing."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from registry.catalog.projection import apply, owner
from registry.clock import Clock, stamp
from registry.log.entries import Entry
from registry.log.ledger import Ledger
from registry.signing.keys import Signer
from registry.store.port import Store
from registry.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Change:
    rows: Transaction
    """To read from while deciding; nobody else can change anything until the end."""
    ledger: Ledger
    actor: str
    now: str
    """Never before the newest entry: what expired by then has expired, whatever the clock says today."""

    def write(self, kind: str, subject: str, body: Mapping[str, Any]) -> Entry:
        entry = self.ledger.append(kind, subject, body, tenant=owner(self.rows, kind, subject, body))
        apply(self.rows, entry)
        return entry


Changing: TypeAlias = Callable[[str], AbstractContextManager[Change]]


def changing(
    database: Store,
    *,
    signer: Signer,
    clock: Clock,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> Changing:
    """``with change_by(actor) as change``: commits at the end of the block, or leaves no trace."""

    @contextmanager
    def change_by(actor: str) -> Iterator[Change]:
        with database.write() as rows:
            ledger = Ledger(rows.log, signer=signer, clock=clock, actor=actor, entropy=entropy)
            change = Change(rows, ledger, actor, max(stamp(clock.now()), rows.log.last_at()))
            yield change
            change.ledger.seal()

    return change_by
