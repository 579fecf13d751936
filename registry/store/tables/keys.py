"""API keys: hashes only."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import Key
from registry.store.rows import KeyRow
from registry.store.tables.parsing import built


@dataclass(frozen=True, slots=True)
class KeyTable:
    session: Session

    def get(self, key_id: str) -> Key | None:
        row = self.session.get(KeyRow, key_id)
        return _key(row) if row else None

    def of(self, tenant: str) -> tuple[Key, ...]:
        return _keys(
            self.session.exec(select(KeyRow).where(KeyRow.tenant == tenant).order_by(col(KeyRow.id))).all()
        )

    def all(self) -> tuple[Key, ...]:
        return _keys(self.session.exec(select(KeyRow).order_by(col(KeyRow.id))).all())

    def put(self, key: Key, *, entry: int) -> None:
        self.session.merge(
            KeyRow(
                id=key.id,
                tenant=key.tenant,
                role=str(key.role),
                secret_hash=str(key.secret_hash),
                revoked=key.revoked,
                entry=entry,
            )
        )
        self.session.flush()


def _keys(rows: Sequence[KeyRow]) -> tuple[Key, ...]:
    return tuple(_key(row) for row in rows)


def _key(row: KeyRow) -> Key:
    return built(
        Key, id=row.id, tenant=row.tenant, role=row.role, secret_hash=row.secret_hash, revoked=row.revoked
    )
