"""Public keys that the registry trusts."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import PublicKey
from registry.store.rows import SignerRow
from registry.store.tables.parsing import built


@dataclass(frozen=True, slots=True)
class SignerTable:
    session: Session

    def all(self) -> dict[str, PublicKey]:
        rows = self.session.exec(select(SignerRow).order_by(col(SignerRow.id))).all()
        return {row.id: built(PublicKey, id=row.id, role=row.role, ed25519=row.ed25519) for row in rows}

    def add(self, key: PublicKey, *, entry: int) -> None:
        self.session.add(SignerRow(id=key.id, role=key.role, ed25519=key.ed25519, entry=entry))
        self.session.flush()
