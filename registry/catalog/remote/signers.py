"""Trusted signers, from afar."""

from registry.catalog.remote.pages import listed
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import path
from registry.models import PublicKey


class Signers(Part):
    def trust(self, key: PublicKey, *, actor: str) -> None:
        """Raises SignerInvalid, AlreadyExists (the same key with another role)."""
        self._wire.post("/signers", key.model_dump(mode="json"))

    def distrust(self, signer: str, *, reason: str, actor: str) -> None:
        """What it signed before stays; nothing that it signs from now on counts."""
        self._wire.call("DELETE", path("signers", signer), query={"reason": reason})

    def trusted(self) -> dict[str, PublicKey]:
        """Key id -> key."""
        return {key.id: key for key in listed(self._wire, "/signers", PublicKey)}
