"""A version as an OCI image layout (image-spec 1.1), so that any OCI registry can carry it.

It is an artifact of our own type, as ORAS makes them, and the same version always gives the same bytes. The
config of the artifact *is* the Tenon manifest, so the config's digest is the version. Layers are the files
that it names. Signatures are referrers (artifacts of their own with the version as ``subject``): added later,
they leave the artifact as it was.
"""

import base64
import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from registry.canonical import encode
from registry.digests import Digest, chunks
from registry.errors import AlreadyExists, BlobCorrupt
from registry.intake import CONFIG, WEIGHTS
from registry.manifests import BlobRef, Manifest
from registry.signing.envelope import Envelope

ARTIFACT: Final = "application/vnd.tenon.adapter.v1"
SIGNATURE: Final = "application/vnd.tenon.signature.v1"
MANIFEST: Final = "application/vnd.tenon.adapter.manifest.v1+json"
ENVELOPE: Final = "application/vnd.dsse.envelope.v1+json"
LAYERS: Final[Mapping[str, str]] = {
    CONFIG: "application/vnd.tenon.adapter.peft-config.v1+json",
    WEIGHTS: "application/vnd.tenon.adapter.weights.v1.safetensors",
    "contract.json": "application/vnd.tenon.adapter.contract.v1+json",
    "fingerprint.json": "application/vnd.tenon.adapter.fingerprint.v1+json",
}
"""File -> its media type. Nothing else can be in an artifact."""
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
TITLE: Final = "org.opencontainers.image.title"
"""Where ORAS keeps the file name of a layer."""
TAG: Final = "org.opencontainers.image.ref.name"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_EMPTY: Final = b"{}"


@dataclass(frozen=True, slots=True)
class Exported:
    artifact: Digest
    """Of the OCI manifest: what a registry will know it by."""
    tag: str


def files_of(manifest: Manifest) -> tuple[BlobRef, ...]:
    """Whatever a version is made of, in the order of the layers."""
    refs = (*manifest.files, manifest.contract, manifest.fingerprint)
    return tuple(ref for ref in refs if ref is not None)


def write(
    manifest: Manifest, files: Mapping[str, Path], signatures: Sequence[Envelope], folder: Path
) -> Exported:
    """A new folder ``folder``, whole or not at all. Raises AlreadyExists; BlobCorrupt for other bytes."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists("the folder is not empty", hint="choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.{secrets.token_hex(8)}"
    try:
        (partial / "blobs" / "sha256").mkdir(parents=True)
        exported = _fill(partial, manifest, files, signatures)
        partial.rename(folder)
    except BaseException:
        with suppress(FileNotFoundError):
            shutil.rmtree(partial)
        raise
    return exported


def _fill(
    root: Path, manifest: Manifest, files: Mapping[str, Path], signatures: Sequence[Envelope]
) -> Exported:
    layers = []
    for ref in files_of(manifest):
        with files[ref.path].open("rb") as source:
            _copy(root, source, ref)
        layers.append(_descriptor(LAYERS[ref.path], ref.digest, ref.size, {TITLE: ref.path}))
    version = manifest.identity()
    artifact = _put(
        root,
        OCI_MANIFEST,
        encode(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": ARTIFACT,
                "config": _put(root, MANIFEST, manifest.canonical()),
                "layers": layers,
                "annotations": {
                    "vnd.tenon.adapter": f"{manifest.tenant}/{manifest.adapter}",
                    "vnd.tenon.version": version,
                },
            }
        ),
    )
    tag = version.hex[:16]
    listed = [artifact | {"artifactType": ARTIFACT, "annotations": {TAG: tag}}]
    for envelope in sorted(signatures, key=Envelope.identity):
        layer = _put(root, ENVELOPE, envelope.canonical()) | {"annotations": {TITLE: "signature.json"}}
        signature = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": SIGNATURE,
            "config": _put(root, "application/vnd.oci.empty.v1+json", _EMPTY)
            | {"data": base64.b64encode(_EMPTY).decode()},
            "layers": [layer],
            "subject": artifact,
        }
        listed.append(_put(root, OCI_MANIFEST, encode(signature)) | {"artifactType": SIGNATURE})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    (root / "index.json").write_bytes(encode(index))
    (root / "oci-layout").write_bytes(LAYOUT)  # last: without it, a folder is no layout
    return Exported(Digest(str(artifact["digest"])), tag)


def _put(root: Path, media_type: str, data: bytes) -> dict[str, Any]:
    digest = Digest.of(data)
    (root / "blobs" / "sha256" / digest.hex).write_bytes(data)
    return _descriptor(media_type, digest, len(data))


def _copy(root: Path, source: BinaryIO, ref: BlobRef) -> None:
    seen, size = hashlib.sha256(), 0
    with (root / "blobs" / "sha256" / ref.digest.hex).open("wb") as target:
        for piece in chunks(source):
            seen.update(piece)
            size += len(piece)
            target.write(piece)
        target.flush()
        os.fsync(target.fileno())
    if (seen.hexdigest(), size) != (ref.digest.hex, ref.size):
        raise BlobCorrupt(f"the bytes of {ref.path} are not {ref.digest.short}", digest=ref.digest)


def _descriptor(
    media_type: str, digest: Digest, size: int, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": media_type, "digest": str(digest), "size": size}
    return found | ({"annotations": dict(annotations)} if annotations else {})
