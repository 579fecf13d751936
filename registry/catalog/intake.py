"""Push and publish adapter versions: two ways for bytes to come, one way to look at them."""

import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from registry.blobs.disk import writable
from registry.blobs.errors import UploadMismatch
from registry.catalog import bases, tenants
from registry.catalog.change import Changing
from registry.catalog.errors import FingerprintInvalid
from registry.catalog.projection import VERSION_PUSHED
from registry.contract import Contract
from registry.digests import Digest
from registry.errors import AdapterFileUnexpected, AdapterZeroEffect, VersionRevoked
from registry.fingerprint import MAX_PROBE_TOKENS, MAX_PROBES, Fingerprint, beyond_bounds
from registry.intake import CONFIG, WEIGHTS, inspect
from registry.manifests import BlobRef, Manifest, Provenance
from registry.models import Base
from registry.names import AdapterName, parse_name
from registry.ports import Blobs
from registry.store.port import Store

CONTRACT = "contract.json"
FINGERPRINT = "fingerprint.json"
MAX_FILES = 32
"""An adapter has two; the companions that trainers leave beside them are about twenty."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Intake:
    """What decides whether bytes may become a version, and where they go then."""

    store: Store
    blobs: Blobs
    change_by: Changing
    max_rank: int

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
        """Everything is checked before the first byte is stored; blobs come before the rows that name them.

        A crash in between leaves bytes that nothing refers to, and pushing again uses them.
        """
        document, contract = self._judged(name, base, fingerprint)
        _, found = inspect(folder, base=document, max_rank=self.max_rank)
        with writable(), tempfile.TemporaryDirectory(prefix="tenon-push-") as private:
            # The given folder may still be written to: only a private copy is the same bytes twice.
            for path in found:
                shutil.copyfile(path, Path(private) / path.name, follow_symlinks=False)
            manifest = self._stored(name, Path(private), document, contract, fingerprint, provenance, {})
        return self._recorded(manifest, actor)

    def publish(
        self,
        name: AdapterName,
        files: Mapping[str, Digest],
        *,
        base: Digest,
        fingerprint: Fingerprint | None,
        provenance: Provenance,
        actor: str,
        contents: Mapping[str, bytes],
    ) -> Digest:
        """The same for bytes that were uploaded before, or come now, as ``contents``. Raises BlobNotFound,
        BlobCorrupt, UploadMismatch too.

        Whether this caller may use the blobs of the others is for whoever calls: here a digest is enough.
        """
        document, contract = self._judged(name, base, fingerprint)
        if len(files) > MAX_FILES:
            raise AdapterFileUnexpected(f"{len(files)} files, at most {MAX_FILES} are possible")
        with writable(), tempfile.TemporaryDirectory(prefix="tenon-publish-") as private:
            for path, digest in files.items():
                if not _PLAIN.fullmatch(path):
                    raise AdapterFileUnexpected(f"{ascii(path)[:80]} is no plain file name", file=path)
                if path in contents:
                    _write(Path(private) / path, contents[path], digest)
                    continue
                with self.blobs.open(digest) as source, (Path(private) / path).open("xb") as target:
                    if path in (CONFIG, WEIGHTS):  # of the others nothing but the name is ever looked at
                        shutil.copyfileobj(source, target)
            present = {path: digest for path, digest in files.items() if path not in contents}
            manifest = self._stored(name, Path(private), document, contract, fingerprint, provenance, present)
        return self._recorded(manifest, actor)

    def _judged(
        self, name: AdapterName, base: Digest, fingerprint: Fingerprint | None
    ) -> tuple[Base, Contract]:
        parse_name(name.tenant, "tenant")
        parse_name(name.adapter, "adapter name")
        with self.store.read() as rows:
            tenants.require(rows, name.tenant)
            _, document, contract = bases.find(rows, base)
        if fingerprint is not None:
            check_fingerprint(fingerprint, base)
        return document, contract

    def _stored(
        self,
        name: AdapterName,
        folder: Path,
        base: Base,
        contract: Contract,
        fingerprint: Fingerprint | None,
        provenance: Provenance,
        present: Mapping[str, Digest],
    ) -> Manifest:
        """``present``: files that were read from the blobs, and checked, a moment ago."""
        shape, files = inspect(folder, base=base, max_rank=self.max_rank)
        refs = []
        for path in sorted(files, key=lambda path: path.name):
            known = present.get(path.name)
            if known is not None and self.blobs.renew(known):  # or half a megabyte travels for a date
                refs.append(BlobRef(path=path.name, digest=known, size=path.stat().st_size))
                continue
            with path.open("rb") as stream:
                digest, size = self.blobs.put(stream)
            refs.append(BlobRef(path=path.name, digest=digest, size=size))
        return Manifest(
            tenant=name.tenant,
            adapter=name.adapter,
            base=base.identity(),
            lora=shape,
            files=tuple(refs),
            contract=_kept(self.blobs, CONTRACT, contract.canonical()),
            fingerprint=_put(self.blobs, FINGERPRINT, fingerprint.canonical()) if fingerprint else None,
            provenance=provenance,
        )

    def _recorded(self, manifest: Manifest, actor: str) -> Digest:
        version = manifest.identity()
        with self.change_by(actor) as change:
            tenants.require(change.rows, manifest.tenant)
            known = change.rows.versions.get(version)
            if known is None:
                change.write(VERSION_PUSHED, version, {"manifest": manifest.model_dump(mode="json")})
            elif known.revoked:
                raise VersionRevoked(f"{version} was pushed before and then revoked")
        return version


def _write(path: Path, data: bytes, expected: Digest) -> None:
    if Digest.of(data) != expected:
        raise UploadMismatch(f"the bytes sent of {path.name} are not those of the digest", file=path.name)
    path.write_bytes(data)


def _kept(blobs: Blobs, path: str, data: bytes) -> BlobRef:
    """For bytes that are nearly always there: to ask is cheaper than to send them and be refused."""
    digest = Digest.of(data)
    return (
        BlobRef(path=path, digest=digest, size=len(data)) if blobs.renew(digest) else _put(blobs, path, data)
    )


def _put(blobs: Blobs, path: str, data: bytes) -> BlobRef:
    digest, size = blobs.put(BytesIO(data))
    return BlobRef(path=path, digest=digest, size=size)


def check_fingerprint(fingerprint: Fingerprint, base: Digest) -> None:
    if fingerprint.base != base:
        raise FingerprintInvalid("the fingerprint was made on another base")
    if (beyond := beyond_bounds(fingerprint)) is not None:
        raise FingerprintInvalid(
            beyond,
            hint=f"make it again with Tenon's trainer: at most {MAX_PROBES} different probes of at most"
            f" {MAX_PROBE_TOKENS} tokens",
        )
    for number, probe in enumerate(fingerprint.probes):
        for what, reference in (("own", probe.own), ("base", probe.base)):
            if len({token for token, _ in reference}) != len(reference):
                raise FingerprintInvalid(f"probe {number}: {what} names a token twice")
    if not math.isfinite(fingerprint.distance_to_base) or fingerprint.distance_to_base < 0:
        raise FingerprintInvalid("distance_to_base must be a finite number, 0 or more")
    if not all(math.isfinite(noise) and noise > 0 for noise in fingerprint.noise.values()):
        raise FingerprintInvalid("a noise must be a finite number above 0")
    if fingerprint.distance_to_base == 0:
        raise AdapterZeroEffect("the fingerprint is that of the bare base", hint="train the adapter first")
