"""API keys: hashes only."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import Key, Quota
from registry.store.rows import KeyRow
from registry.store.tables.parsing import built, parsed, text_of


@dataclass(frozen=True, slots=True)
class KeyTable:
    session: Session

    def get(self, key_id: str) -> Key | None:
        row = self.session.get(KeyRow, key_id)
        return _key(row) if row else None

    def issuer(self, key_id: str) -> str | None:
        """The actor who was shown the secret."""
        row = self.session.get(KeyRow, key_id)
        return row.issuer if row else None

    def of(
        self, tenant: str | None, *, after: str | None = None, limit: int | None = None
    ) -> tuple[Key, ...]:
        """By id; None: the platform's own."""
        found = select(KeyRow).where(col(KeyRow.tenant) == tenant).order_by(col(KeyRow.id))
        if after is not None:
            found = found.where(KeyRow.id > after)
        return _keys(self.session.exec(found if limit is None else found.limit(limit)).all())

    def all(self) -> tuple[Key, ...]:
        return _keys(self.session.exec(select(KeyRow).order_by(col(KeyRow.id))).all())

    def put(self, key: Key, *, issuer: str, entry: int) -> None:
        self.session.merge(
            KeyRow(
                id=key.id,
                tenant=key.tenant,
                role=str(key.role),
                secret_hash=str(key.secret_hash),
                revoked=key.revoked,
                expires_at=key.expires_at,
                label=key.label,
                root=key.root,
                quota=text_of(key.quota) if key.quota is not None else None,
                issuer=issuer,
                entry=entry,
            )
        )
        self.session.flush()


def _keys(rows: Sequence[KeyRow]) -> tuple[Key, ...]:
    return tuple(_key(row) for row in rows)


def _key(row: KeyRow) -> Key:
    return built(
        Key,
        id=row.id,
        tenant=row.tenant,
        role=row.role,
        secret_hash=row.secret_hash,
        revoked=row.revoked,
        expires_at=row.expires_at,
        label=row.label,
        root=row.root,
        quota=parsed(Quota, row.quota).model_dump(mode="json") if row.quota is not None else None,
    )
