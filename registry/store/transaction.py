"""What the catalog sees of the database: typed tables within one transaction."""

from collections.abc import Iterator

from sqlalchemy import inspect
from sqlmodel import Session, select

from registry.store import soundness
from registry.store.rows import PROJECTED
from registry.store.tables.aliases import AliasTable
from registry.store.tables.answers import AnswerTable
from registry.store.tables.bases import BaseTable
from registry.store.tables.counts import CountTable
from registry.store.tables.engines import EngineTable
from registry.store.tables.feed import FeedTable
from registry.store.tables.keys import KeyTable
from registry.store.tables.log import LogTable
from registry.store.tables.policies import PolicyTable
from registry.store.tables.preparations import PreparationTable
from registry.store.tables.proposals import ProposalTable
from registry.store.tables.protections import ProtectionTable
from registry.store.tables.records import RecordHeadTable
from registry.store.tables.routes import RouteTable
from registry.store.tables.routings import RoutingTable
from registry.store.tables.shipped import ShippedTable
from registry.store.tables.signatures import SignatureTable
from registry.store.tables.signers import SignerTable
from registry.store.tables.tenants import TenantTable
from registry.store.tables.usage import UsageTable
from registry.store.tables.versions import VersionTable


class Transaction:
    def __init__(self, session: Session, *, whole: bool = True) -> None:
        """``whole``: all rows are there, and not one tenant's only."""
        self._session = session
        self.log = LogTable(session, whole)
        self.tenants = TenantTable(session)
        self.keys = KeyTable(session)
        self.signers = SignerTable(session)
        self.bases = BaseTable(session)
        self.policies = PolicyTable(session)
        self.routes = RouteTable(session)
        self.routings = RoutingTable(session)
        self.versions = VersionTable(session)
        self.signatures = SignatureTable(session)
        self.aliases = AliasTable(session)
        self.preparations = PreparationTable(session)
        self.protections = ProtectionTable(session)
        self.proposals = ProposalTable(session)
        self.engines = EngineTable(session)
        self.records = RecordHeadTable(session)
        self.feed = FeedTable(session)
        self.usage = UsageTable(session)
        self.counts = CountTable(session)
        self.shipped = ShippedTable(session)
        self.answers = AnswerTable(session)

    def integrity(self) -> tuple[str, ...]:
        """What the database itself knows to be wrong with it; empty means sound."""
        return soundness.faults(self._session)

    def projection(self) -> Iterator[tuple[str, tuple[object, ...], dict[str, object]]]:
        """(table, primary key, columns) of every row that the log decides, unparsed: two databases that
        hold the same log must give the same."""
        for row_type in PROJECTED:
            mapper = inspect(row_type)
            keys = [column.key for column in mapper.primary_key]
            for row in self._session.exec(select(*mapper.local_table.columns)).all():
                columns = dict(row._mapping)
                yield str(row_type.__tablename__), tuple(columns[key] for key in keys), columns
