"""Policies, by digest."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.digests import Digest
from registry.models import Policy
from registry.store.rows import PolicyRow
from registry.store.tables.parsing import parsed, text_of


@dataclass(frozen=True, slots=True)
class PolicyTable:
    session: Session

    def get(self, digest: str) -> Policy | None:
        row = self.session.get(PolicyRow, digest)
        return parsed(Policy, row.document, digest=row.digest) if row else None

    def all(self) -> dict[Digest, Policy]:
        rows = self.session.exec(select(PolicyRow).order_by(col(PolicyRow.digest))).all()
        return {Digest(row.digest): parsed(Policy, row.document, digest=row.digest) for row in rows}

    def of(self, tenant: str, *, after: str | None = None, limit: int | None = None) -> dict[Digest, Policy]:
        """By digest."""
        found = select(PolicyRow).where(PolicyRow.tenant == tenant).order_by(col(PolicyRow.digest))
        if after is not None:
            found = found.where(PolicyRow.digest > after)
        rows = self.session.exec(found if limit is None else found.limit(limit)).all()
        return {Digest(row.digest): parsed(Policy, row.document, digest=row.digest) for row in rows}

    def add(self, policy: Policy, *, entry: int) -> None:
        document = text_of(policy)
        self.session.add(
            PolicyRow(digest=str(policy.identity()), tenant=policy.tenant, document=document, entry=entry)
        )
        self.session.flush()
