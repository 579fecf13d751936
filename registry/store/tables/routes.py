"""Routes, replaced tenant by tenant."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import Route
from registry.store.rows import RouteRow
from registry.store.tables.parsing import parsed, text_of


@dataclass(frozen=True, slots=True)
class RouteTable:
    session: Session

    def of(self, tenant: str) -> tuple[Route, ...]:
        found = select(RouteRow).where(RouteRow.tenant == tenant).order_by(col(RouteRow.position))
        return tuple(parsed(Route, row.document) for row in self.session.exec(found).all())

    def all(self) -> tuple[Route, ...]:
        found = select(RouteRow).order_by(col(RouteRow.tenant), col(RouteRow.position))
        return tuple(parsed(Route, row.document) for row in self.session.exec(found).all())

    def replace(self, tenant: str, routes: Sequence[Route], *, entry: int) -> None:
        for row in self.session.exec(select(RouteRow).where(RouteRow.tenant == tenant)).all():
            self.session.delete(row)
        self.session.flush()
        for position, route in enumerate(routes):
            self.session.add(
                RouteRow(
                    tenant=tenant,
                    name=route.name,
                    position=position,
                    policy=str(route.policy),
                    document=text_of(route),
                    entry=entry,
                )
            )
        self.session.flush()
