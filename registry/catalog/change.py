"""One change: an entry, what it does to the tables, and the signed head, all or nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from registry.catalog.projection import apply
from registry.clock import Clock
from registry.log.entries import Entry
from registry.log.ledger import Ledger
from registry.signing.keys import Signer
from registry.store.database import Database
from registry.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Change:
    rows: Transaction
    """To read from while deciding; nobody else can change anything until the end."""
    ledger: Ledger

    def write(self, kind: str, subject: str, body: Mapping[str, Any]) -> Entry:
        entry = self.ledger.append(kind, subject, body)
        apply(self.rows, entry)
        return entry


Changing: TypeAlias = Callable[[str], AbstractContextManager[Change]]


def changing(database: Database, *, signer: Signer, clock: Clock) -> Changing:
    """``with change_by(actor) as change``: commits at the end of the block, or leaves no trace."""

    @contextmanager
    def change_by(actor: str) -> Iterator[Change]:
        with database.write() as rows:
            change = Change(rows, Ledger(rows.log, signer=signer, clock=clock, actor=actor))
            yield change
            change.ledger.seal()

    return change_by
