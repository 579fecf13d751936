"""The newest routing of each tenant; those before it are in the log."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import Routing
from registry.store.rows import RoutingRow
from registry.store.tables.parsing import parsed, text_of


@dataclass(frozen=True, slots=True)
class RoutingTable:
    session: Session

    def get(self, tenant: str) -> Routing:
        """Revision 0, and no rules, when none was published."""
        row = self.session.get(RoutingRow, tenant)
        return parsed(Routing, row.document) if row else Routing(tenant=tenant, revision=0)

    def all(self) -> tuple[Routing, ...]:
        rows = self.session.exec(select(RoutingRow).order_by(col(RoutingRow.tenant))).all()
        return tuple(parsed(Routing, row.document) for row in rows)

    def put(self, routing: Routing, *, entry: int) -> None:
        self.session.merge(
            RoutingRow(
                tenant=routing.tenant, revision=routing.revision, document=text_of(routing), entry=entry
            )
        )
        self.session.flush()
