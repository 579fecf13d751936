"""Public keys that the registry trusts, or once did."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import PublicKey
from registry.store.errors import StoreCorrupt
from registry.store.rows import SignerRow
from registry.store.tables.parsing import built


@dataclass(frozen=True, slots=True)
class SignerTable:
    session: Session

    def get(self, signer: str) -> PublicKey | None:
        """Trusted now."""
        row = self.session.get(SignerRow, signer)
        return _signer(row) if row and not row.distrusted else None

    def distrusted(self, signer: str) -> bool:
        row = self.session.get(SignerRow, signer)
        return row is not None and row.distrusted

    def all(self) -> dict[str, PublicKey]:
        """Those trusted now."""
        trusted = select(SignerRow).where(col(SignerRow.distrusted).is_(False))
        rows = self.session.exec(trusted.order_by(col(SignerRow.id))).all()
        return {row.id: _signer(row) for row in rows}

    def add(self, key: PublicKey, *, entry: int) -> None:
        self.session.add(
            SignerRow(id=key.id, role=key.role, ed25519=key.ed25519, distrusted=False, entry=entry)
        )
        self.session.flush()

    def distrust(self, signer: str, *, entry: int) -> None:
        row = self.session.get(SignerRow, signer)
        if row is None:
            raise StoreCorrupt(f"there is no signer {signer} to distrust")
        row.distrusted, row.entry = True, entry
        self.session.add(row)
        self.session.flush()


def _signer(row: SignerRow) -> PublicKey:
    return built(PublicKey, id=row.id, role=row.role, ed25519=row.ed25519)
