"""Versions out of a registry and into another one, as OCI image layouts."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from registry import oci, oci_intake
from registry.digests import Digest
from registry.errors import LayoutInvalid, SignatureInvalid
from registry.intake import inspect
from registry.names import AdapterName, Ref
from server.assembly.place import Catalog

ACTOR = "cli"


@dataclass(frozen=True, slots=True)
class Taken:
    version: Digest
    signatures: int
    """Of signers that this registry trusts; the others were left behind."""


def export(catalog: Catalog, ref: Ref, folder: Path) -> tuple[Digest, oci.Exported]:
    """Raises VersionNotFound, VersionRevoked, AlreadyExists, BlobNotFound, BlobCorrupt."""
    version = catalog.resolve(ref)
    with tempfile.TemporaryDirectory(prefix="tenon-export-") as private:
        manifest = catalog.export(version, Path(private) / "files")
        files = {file.path: Path(private) / "files" / file.path for file in manifest.files}
        for document in (manifest.contract, manifest.fingerprint):
            if document is not None:
                files[document.path] = Path(private) / document.path
                files[document.path].write_bytes(catalog.read_blob(manifest.tenant, document.digest))
        return version, oci.write(manifest, files, catalog.signatures(version), folder)


def take(catalog: Catalog, folder: Path, name: AdapterName | None, *, tag: str | None) -> Taken:
    """The version in the layout, through the same intake as every push.

    Under its own name it keeps its digest; under another one (``name``) it is another version, and signatures
    over the old one say nothing of it.

    Raises LayoutInvalid, BaseNotFound, and what the catalog's push raises.
    """
    with tempfile.TemporaryDirectory(prefix="tenon-import-") as private:
        found = oci_intake.read(folder, Path(private), tag=tag)
        manifest = found.manifest
        _, base, contract = catalog.base(manifest.base)
        if contract.identity() != manifest.contract.digest:
            raise LayoutInvalid(f"the base {base.name} is registered here with another contract")
        shape, _ = inspect(Path(private), base=base, max_rank=None)  # the push below knows the bound
        if shape != manifest.lora:
            raise LayoutInvalid("the weights are not as the manifest describes them")
        version = catalog.push(
            name or AdapterName(manifest.tenant, manifest.adapter),
            Path(private),
            base=manifest.base,
            fingerprint=found.fingerprint,
            provenance=manifest.provenance,
            actor=ACTOR,
        )
    signed = 0
    for envelope in found.signatures if version == manifest.identity() else ():
        try:
            catalog.sign_version(version, envelope, actor=ACTOR)
        except SignatureInvalid:
            continue
        signed += 1
    return Taken(version, signed)
