"""Pull a version from afar: private until every byte was checked, and never from the beginning again."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.catalog.export import holds, sync
from registry.catalog.remote.errors import AnswerInvalid, PullBusy, Unreachable
from registry.catalog.remote.push import Progress
from registry.catalog.remote.versions import Versions
from registry.digests import Digest
from registry.errors import AlreadyExists, BlobCorrupt, InvalidDocument, VersionRevoked
from registry.fingerprint import Fingerprint
from registry.manifests import BlobRef, Manifest

_DOCUMENT = 8 << 20
"""Bytes of a document that is read at once; the largest, a fingerprint, has some hundred thousand."""


class Pulls(Versions):
    def export(self, version: Digest, folder: Path, *, progress: Progress | None = None) -> Manifest:
        """Write the adapter's files to ``folder``, checked, all or none; files that an earlier attempt left
        checked beside it are not read again.

        Raises VersionNotFound, VersionRevoked, AlreadyExists, PullBusy, AnswerInvalid, Unreachable.
        """
        manifest = self.manifest(version)
        if self.view(self._name_of(version), version).state == "revoked":
            raise VersionRevoked(f"{version} was revoked")
        if holds(folder, manifest):
            return manifest
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise AlreadyExists(
                "the folder is not empty and holds something else", hint="choose another folder"
            )
        total, done = sum(file.size for file in manifest.files), 0
        with _partial(folder, version) as partial:
            for file in manifest.files:
                self._fetch(manifest.tenant, file, partial)
                done += file.size
                if progress is not None:
                    progress(done, total)
            _only(partial, manifest)
            sync(partial)
            try:
                partial.rename(folder)  # replaces an empty folder, fails on a full one
            except OSError:
                if not holds(folder, manifest):
                    raise AlreadyExists("the folder was filled with something else meanwhile") from None
                shutil.rmtree(partial)
            sync(folder.parent)
        return manifest

    def read_blob(self, tenant: str, digest: Digest) -> bytes:
        """A small document that a version of the tenant is made of. Raises BlobNotFound, BlobCorrupt."""
        data = bytearray()
        with self._wire.stream(self._of(tenant, "blobs", digest)) as pieces:
            for piece in pieces:
                data += piece
                if len(data) > _DOCUMENT:
                    raise AnswerInvalid("the registry sent a document without end")
        if Digest.of(bytes(data)) != digest:
            raise BlobCorrupt(f"the bytes that the registry sent are not {digest.short}")
        return bytes(data)

    def fingerprint(self, version: Digest) -> Fingerprint | None:
        """Pushed with the version or filed later; None: there is none. Raises VersionNotFound, BlobNotFound,
        BlobCorrupt, AnswerInvalid."""
        digest = self.fingerprint_digest(version)
        if digest is None:
            return None
        try:
            return Fingerprint.parse(self.read_blob(self.manifest(version).tenant, digest))
        except InvalidDocument as error:
            raise AnswerInvalid(error.message) from None

    def _fetch(self, tenant: str, file: BlobRef, partial: Path) -> None:
        target = partial / file.path
        if target.is_file() and not target.is_symlink() and Digest.of_file(target) == file.digest:
            return
        for attempt in range(1, self._wire.patience.attempts + 1):
            try:
                self._stream(tenant, file, target)
            except Unreachable:
                if attempt == self._wire.patience.attempts:
                    raise
                self._wire.breathe(attempt)
            else:
                return

    def _stream(self, tenant: str, file: BlobRef, target: Path) -> None:
        unchecked = target.with_name(f".{file.path}.unchecked")
        seen, size = hashlib.sha256(), 0
        with (
            self._wire.stream(self._of(tenant, "blobs", file.digest)) as pieces,
            unchecked.open("wb") as stream,
        ):
            for piece in pieces:
                size += len(piece)
                if size > file.size:
                    break
                seen.update(piece)
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        if size != file.size or f"sha256:{seen.hexdigest()}" != file.digest:
            unchecked.unlink()
            raise BlobCorrupt(
                f"the bytes of {file.path} that the registry sent are not {file.digest.short}",
                hint="nothing was written: try again, and tell the registry's operator if it stays so",
            )
        unchecked.chmod(0o644)
        unchecked.rename(target)


@contextmanager
def _partial(folder: Path, version: Digest) -> Iterator[Path]:
    """A private folder beside ``folder``, the same one for the next attempt, and ours alone meanwhile."""
    partial = folder.parent / f".{folder.name}.{version.hex[:16]}.partial"
    partial.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PullBusy(f"{folder.name} is being pulled already") from None
        yield partial
    finally:
        os.close(descriptor)


def _only(partial: Path, manifest: Manifest) -> None:
    """What a killed attempt left half-written must not come along."""
    wanted = {file.path for file in manifest.files}
    for path in partial.iterdir():
        if path.name not in wanted:
            path.unlink()
    if not holds(partial, manifest):
        raise AnswerInvalid("the pulled files changed before they were complete")
