"""Signatures over manifests: one a signer and version."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.signing.envelope import Envelope
from registry.store.rows import SignatureRow
from registry.store.tables.parsing import parsed, text_of


@dataclass(frozen=True, slots=True)
class SignatureTable:
    session: Session

    def has(self, version: str, signer: str) -> bool:
        return self.session.get(SignatureRow, (version, signer)) is not None

    def of(self, version: str) -> tuple[Envelope, ...]:
        """Oldest first."""
        found = select(SignatureRow).where(SignatureRow.version == version).order_by(col(SignatureRow.entry))
        return tuple(parsed(Envelope, row.envelope) for row in self.session.exec(found).all())

    def add(self, version: str, signer: str, tenant: str, envelope: Envelope, *, entry: int) -> None:
        self.session.add(
            SignatureRow(
                version=version, signer=signer, tenant=tenant, envelope=text_of(envelope), entry=entry
            )
        )
        self.session.flush()
