"""Promotions that wait for approval, or once did."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.names import AdapterName
from registry.promotions import Proposal
from registry.store.rows import ProposalRow
from registry.store.tables.parsing import parsed, text_of


@dataclass(frozen=True, slots=True)
class ProposalTable:
    session: Session

    def get(self, proposal: str) -> Proposal | None:
        row = self.session.get(ProposalRow, proposal)
        return parsed(Proposal, row.document) if row else None

    def of(self, tenant: str, *, after: str | None = None, limit: int | None = None) -> tuple[Proposal, ...]:
        """Oldest first; ``after``: an id."""
        found = select(ProposalRow).where(ProposalRow.tenant == tenant).order_by(col(ProposalRow.opened))
        if after is not None:
            seen = select(ProposalRow.opened).where(ProposalRow.id == after, ProposalRow.tenant == tenant)
            found = found.where(col(ProposalRow.opened) > seen.scalar_subquery())
        return _proposals(self.session.exec(found if limit is None else found.limit(limit)).all())

    def open(self, name: AdapterName, alias: str | None = None) -> tuple[Proposal, ...]:
        found = select(ProposalRow).where(
            ProposalRow.tenant == name.tenant,
            ProposalRow.adapter == name.adapter,
            ProposalRow.state == "open",
        )
        if alias is not None:
            found = found.where(ProposalRow.alias == alias)
        return _proposals(self.session.exec(found.order_by(col(ProposalRow.opened))).all())

    def put(self, proposal: Proposal, *, entry: int) -> None:
        """New, or in its next state."""
        row = self.session.get(ProposalRow, proposal.id)
        self.session.merge(
            ProposalRow(
                id=proposal.id,
                tenant=proposal.tenant,
                adapter=proposal.adapter,
                alias=proposal.alias,
                state=proposal.state,
                opened=row.opened if row else entry,
                document=text_of(proposal),
                entry=entry,
            )
        )
        self.session.flush()


def _proposals(rows: Sequence[ProposalRow]) -> tuple[Proposal, ...]:
    return tuple(parsed(Proposal, row.document) for row in rows)
