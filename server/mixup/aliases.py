"""The aliases of tenants that somebody else runs, moved between versions that were live before."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from registry.digests import Digest
from registry.evidence import GatePolicy, Rule
from registry.manifests import Provenance
from registry.names import AdapterName
from server.assembly.awaiting import Goal, Patience, when_ready
from server.assembly.place import Catalog
from server.mixup.versions import Known

if TYPE_CHECKING:
    from server.mixup.ground import Ground

_ACTOR: Final = "mixup"
_PATIENCE: Final = 120.0
_MARGIN: Final = 4
"""Standard errors: no gate asks for more."""


@dataclass
class Tenants:
    """The aliases behind the tenants' models; see :class:`server.mixup.versions.Moves`."""

    catalog: Catalog
    adapters: dict[str, tuple[AdapterName, str]] = field(default_factory=dict)
    """Name that it is asked by -> its adapter and alias."""
    known: dict[str, Known] = field(default_factory=dict)

    def promote(self, known: Known, *, percent: float = 100) -> None:
        name, alias = self.adapters[known.tenant]
        gate = _gate(self.catalog, known.version)
        # Not promote_or_propose: where people have to approve, nothing is to be asked of them.
        when_ready(
            self.catalog,
            Goal(name, known.version, alias, percent, gate, None),
            Patience(_PATIENCE),
            lambda epoch: self.catalog.promote(
                name,
                known.version,
                gate=gate,
                alias=alias,
                percent=percent,
                expect_epoch=epoch,
                require_ready=True,
                actor=_ACTOR,
            ),
            actor=_ACTOR,
        )

    def rollback(self, tenant: str) -> None:
        name, alias = self.adapters[tenant]
        self.catalog.rollback(name, alias=alias, actor=_ACTOR)

    def live(self, tenant: str) -> Known:
        name, alias = self.adapters[tenant]
        return self.known[str(self.catalog.alias(name, alias).version)]

    def come_and_go(self, ground: "Ground", tenant: str, number: int) -> None:
        """Nothing is left behind in somebody's registry."""

    def push(self, tenant: str, weights: str, folder: Path) -> Digest:
        """What must be refused, and is revoked where it is not. Raises IntakeRefused."""
        name, alias = self.adapters[tenant]
        live = self.catalog.manifest(self.catalog.alias(name, alias).version)
        version = self.catalog.push(
            name,
            folder,
            base=live.base,
            fingerprint=None,
            provenance=Provenance(method="upload"),
            actor=_ACTOR,
        )
        self.catalog.revoke(version, reason=f"mixup: {weights} must be refused", actor=_ACTOR)
        return version

    def find(self, tenant: str, name: str, model: str) -> list[Digest]:
        """The version that answers the model, and up to one that did before and still may."""
        found = [
            each for each in self.catalog.routing(tenant).routes if each.model == model and not each.when
        ]
        if not found:
            return []
        adapter, alias = AdapterName(tenant, found[0].adapter), found[0].alias
        self.adapters[name] = (adapter, alias)
        now = self.catalog.alias(adapter, alias)
        standing = {each.version for each in self.catalog.versions(adapter) if each.state != "revoked"}
        past = [move.version for move in reversed(self.catalog.history(adapter, alias))]
        before = [each for each in dict.fromkeys(past) if each in standing and each != now.version]
        return [now.version, *([] if now.canaries else before[:1])]


def _gate(catalog: Catalog, version: Digest) -> GatePolicy:
    """What the version's reports say already: it was live before, by a gate that nobody has kept."""
    floors: dict[str, float] = {}
    for report in catalog.reports(version):
        for name, metric in report.metrics.items():
            floor = metric.value - _MARGIN * metric.stderr
            floors[name] = min(floor, floors.get(name, floor))
    return GatePolicy(
        name=_ACTOR, rules=tuple(Rule(metric=name, at_least=each) for name, each in floors.items())
    )
