"""A registry in memory, for tests and for trying a recipe without a workspace."""

from pathlib import Path

from registry.contract import Contract
from registry.digests import Digest
from registry.errors import BaseNotFound, TenantNotFound, VersionNotFound
from registry.evidence import Report
from registry.fingerprint import Fingerprint
from registry.intake import inspect
from registry.manifests import BlobRef, Manifest, Provenance
from registry.models import Base
from registry.names import AdapterName
from registry.signing.envelope import Envelope


class InMemoryCatalog:
    """``trainer.ports.Catalog`` without storage: it checks what it is given as the real one does, and keeps
    manifests and reports only. Signatures are not verified: it knows no keys."""

    def __init__(self, *, tenants: frozenset[str]) -> None:
        self._tenants = tenants
        self._bases: dict[Digest, tuple[Base, Contract]] = {}
        self.manifests: dict[Digest, Manifest] = {}
        self.reports: dict[Digest, Report] = {}

    def register_base(self, base: Base, contract: Contract) -> Digest:
        self._bases[base.identity()] = (base, contract)
        return base.identity()

    def base(self, ref: str) -> tuple[Digest, Base, Contract]:
        for digest, (base, contract) in reversed(self._bases.items()):
            if ref in (digest, base.name):
                return digest, base, contract
        raise BaseNotFound(f"there is no base {ref[:80]!r}")

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
        if name.tenant not in self._tenants:
            raise TenantNotFound(f"there is no tenant {name.tenant!r}")
        _, document, contract = self.base(base)
        shape, files = inspect(folder, base=document)
        manifest = Manifest(
            tenant=name.tenant,
            adapter=name.adapter,
            base=base,
            lora=shape,
            files=tuple(_blob(path.name, path.read_bytes()) for path in files),
            contract=_blob("contract.json", contract.canonical()),
            fingerprint=None if fingerprint is None else _blob("fingerprint.json", fingerprint.canonical()),
            provenance=provenance,
        )
        self.manifests[manifest.identity()] = manifest
        return manifest.identity()

    def file_report(self, envelope: Envelope, *, actor: str) -> Digest:
        report = Report.parse(envelope.body())
        if report.version not in self.manifests:
            raise VersionNotFound(f"there is no version {report.version}")
        self.reports[report.identity()] = report
        return report.identity()


def _blob(path: str, data: bytes) -> BlobRef:
    return BlobRef(path=path, digest=Digest.of(data), size=len(data))
