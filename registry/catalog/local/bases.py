"""Base models and their contracts."""

from registry.catalog import bases
from registry.catalog.local.part import Part
from registry.contract import Contract
from registry.digests import Digest
from registry.models import Base


class Bases(Part):
    def register_base(self, base: Base, contract: Contract, *, actor: str) -> Digest:
        """Raises ContractInvalid."""
        with self._change_by(actor) as change:
            return bases.register(change, base, contract)

    def base(self, ref: str) -> tuple[Digest, Base, Contract]:
        """By digest, or by name: the one registered last. Raises BaseNotFound."""
        with self._database.read() as rows:
            return bases.find(rows, ref)

    def bases(self) -> dict[Digest, Base]:
        """All that were registered."""
        with self._database.read() as rows:
            return rows.bases.all()
