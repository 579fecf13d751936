"""What the data plane is told: all of it, as of one log index."""

from registry.log.ledger import root_of
from registry.models import Snapshot
from registry.store.transaction import Transaction


def snapshot(rows: Transaction) -> Snapshot:
    """Within one read transaction, so that size, root and state belong together.

    Raises StoreCorrupt or LogCorrupt rather than hand out a row that cannot be trusted.
    """
    frontier = rows.log.frontier()
    return Snapshot(
        size=frontier.size,
        root=root_of(frontier),
        tenants=rows.tenants.all(),
        keys=rows.keys.all(),
        bases=rows.bases.all(),
        policies=rows.policies.all(),
        routes=rows.routes.all(),
        aliases=rows.aliases.all(),
        versions=rows.versions.states(),
        engines=rows.engines.all(),
        slots=rows.engines.slots(),
    )
