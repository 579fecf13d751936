"""Move an alias back. Mostly engines hold the version before; where they do not, they load it first."""

from registry.catalog.errors import PromotionNotReady
from registry.models import AliasState
from registry.names import AdapterName
from server.assembly.awaiting import Goal, Patience, when_ready
from server.assembly.place import Catalog


def roll_back(
    catalog: Catalog,
    name: AdapterName,
    *,
    alias: str,
    expect_epoch: int | None,
    patience: Patience | None,
    actor: str,
) -> AliasState:
    """``patience``: once all engines that are to hold the version do; None: at once. Nothing is asked for
    before the first try, which mostly is the last. Raises what the catalog's rollback raises."""

    def commit(epoch: int | None) -> AliasState:
        return catalog.rollback(
            name, alias=alias, expect_epoch=epoch, require_ready=patience is not None, actor=actor
        )

    try:
        return commit(expect_epoch)
    except PromotionNotReady:
        if patience is None:  # it asked for nothing of the kind
            raise
    way = catalog.way_back(name, alias=alias)
    epoch = way.epoch if expect_epoch is None else expect_epoch
    goal = Goal(name, way.version, alias, percent=100, gate=None, expect_epoch=epoch)
    return when_ready(catalog, goal, patience, commit, actor=actor)
