"""Versions as they lie in a node's cache."""

from collections.abc import Mapping
from pathlib import Path

from registry.digests import Digest
from registry.manifests import BlobRef, LoraShape, Manifest, Provenance


def version_in(cache: Path, files: Mapping[str, bytes], *, adapter: str = "summaries") -> Digest:
    """``<hex>/`` and ``<hex>.manifest.json``, as the agent writes them; ``adapter`` makes another version."""
    manifest = Manifest(
        tenant="acme",
        adapter=adapter,
        base=Digest.of(b"base"),
        lora=LoraShape(rank=8, alpha=16.0, targets=("q_proj",)),
        files=tuple(
            BlobRef(path=name, digest=Digest.of(data), size=len(data)) for name, data in sorted(files.items())
        ),
        contract=BlobRef(path="contract.json", digest=Digest.of(b"contract"), size=8),
        provenance=Provenance(method="upload"),
    )
    version = manifest.identity()
    (cache / f"{version.hex}.manifest.json").write_bytes(manifest.canonical())
    folder = cache / version.hex
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return version
