"""Keys whose signatures are believed."""

from registry.catalog import signers
from registry.catalog.local.part import Part
from registry.models import PublicKey


class Signers(Part):
    def trust(self, key: PublicKey, *, actor: str) -> None:
        """Raises SignerInvalid, AlreadyExists (the same key with another role)."""
        with self._change_by(actor) as change:
            signers.trust(change, key)

    def distrust(self, signer: str, *, reason: str, actor: str) -> None:
        """What it signed before stays valid. Raises SignerNotFound, SignerInvalid (the log's own key)."""
        with self._change_by(actor) as change:
            signers.distrust(change, signer, reason=reason)

    def trusted(self) -> dict[str, PublicKey]:
        """Key id -> key, of those trusted now."""
        with self._database.read() as rows:
            return rows.signers.all()
