"""What the trainer needs from the registry. Push-only on purpose: nothing here can move an alias."""

from pathlib import Path
from typing import Protocol

from registry.contract import Contract
from registry.digests import Digest
from registry.fingerprint import Fingerprint
from registry.manifests import Provenance
from registry.models import Base
from registry.names import AdapterName
from registry.signing.envelope import Envelope


class Catalog(Protocol):
    """Implementations: ``registry.catalog.local.catalog``, ``trainer.testing.InMemoryCatalog``."""

    def base(self, ref: str) -> tuple[Digest, Base, Contract]:
        """The base that ``ref`` (its name, or name@revision) stands for. Raises BaseNotFound."""
        ...

    def push(
        self,
        name: AdapterName,
        folder: Path,
        *,
        base: Digest,
        fingerprint: Fingerprint | None,
        provenance: Provenance,
        actor: str,
    ) -> Digest:
        """Store an adapter folder as a version; its id. Pushing the same twice gives the same id.

        Raises IntakeRefused, BaseNotFound, TenantNotFound.
        """
        ...

    def file_report(self, envelope: Envelope, *, actor: str) -> Digest:
        """Keep a signed report as evidence; its digest. Raises SignatureInvalid, VersionNotFound."""
        ...


class ReportSigner(Protocol):
    """``registry.signing.keys.Signer`` with the role ``trainer``."""

    def sign(self, payload_type: str, payload: bytes) -> Envelope: ...
