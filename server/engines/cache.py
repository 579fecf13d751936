"""The node's adapters on disk, one read-only folder a version, named by its digest.

vLLM may read a folder again at any time and believes whatever it finds (D3), and dies when the folder is gone
(D4). So a folder appears whole and verified or not at all, is never written again, and is never removed or
replaced while an engine knows its name. Beside ``<hex>/`` lies ``<hex>.manifest.json``, whose digest is the
version: whoever reads the folder can check it without asking anybody.
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from registry.digests import Digest
from registry.errors import BlobCorrupt, TenonError
from registry.manifests import BlobRef, Manifest
from server.engines.errors import CacheDamaged, CacheUnusable
from server.engines.folders import Stamp, publish, read_whole, stamp_of, write_new

Fetch = Callable[[Digest], Awaitable[bytes]]
_DRAFT = ".draft-"


class AdapterCache:
    """One per engine; two engines on one node use two roots."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._known: dict[Digest, Manifest] = {}
        self._stamps: dict[Digest, Stamp] = {}
        self._turn: list[Digest] = []
        """Pinned versions in the order in which they are read in full again."""

    @property
    def root(self) -> Path:
        return self._root

    def folder(self, version: Digest) -> Path:
        return self._root / version.hex

    async def ensure(self, version: Digest, manifest: Manifest, fetch: Fetch) -> Path:
        """The verified folder of ``version``, fetched blob by blob when it is not there.

        A damaged folder is set aside and fetched again, unless an engine knows its name: then BlobCorrupt,
        because replacing files under a running engine is the very thing to prevent. Raises CacheUnusable when
        the disk does not take it (full, read-only): nothing half-written stays.
        """
        if manifest.identity() != version:
            raise CacheUnusable(f"the manifest is not the one of {version.short}")
        try:
            return await self._ensure(version, manifest, fetch)
        except OSError as error:
            raise CacheUnusable(f"the cache cannot hold {version.short}: {error.strerror}") from None

    async def _ensure(self, version: Digest, manifest: Manifest, fetch: Fetch) -> Path:
        folder = self.folder(version)
        if await asyncio.to_thread(os.path.lexists, folder):
            try:
                await asyncio.to_thread(self.verify, version, manifest)
            except BlobCorrupt:
                if version in self._known:
                    raise
                await asyncio.to_thread(self._set_aside, folder)
            else:
                await asyncio.to_thread(self._describe, version, manifest)
                return folder
        draft = await asyncio.to_thread(self._draft)
        try:
            blobs = await asyncio.gather(*(fetch(ref.digest) for ref in manifest.files))
            for ref, data in zip(manifest.files, blobs, strict=True):
                await asyncio.to_thread(_write, draft, ref, data)
            await asyncio.to_thread(self._describe, version, manifest)
            await asyncio.to_thread(publish, draft, folder)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)
            raise
        await asyncio.to_thread(self.verify, version, manifest)
        return folder

    def verify(self, version: Digest, manifest: Manifest) -> None:
        """Read everything back and compare. Raises BlobCorrupt, naming the file."""
        folder = self.folder(version)
        try:
            stamp = stamp_of(folder)
            if set(stamp.files) != {ref.path for ref in manifest.files}:
                raise BlobCorrupt(f"the cached folder of {version.short} holds other files than its manifest")
            for ref in manifest.files:
                if Digest.of(read_whole(folder, ref.path)) != ref.digest:
                    raise BlobCorrupt(f"{ref.path} in the cache is not {ref.digest.short}", digest=ref.digest)
            if stamp_of(folder) != stamp:
                raise BlobCorrupt(f"the cached folder of {version.short} changed while it was read")
        except OSError as error:
            raise BlobCorrupt(
                f"the cached folder of {version.short} cannot be read: {error.strerror}"
            ) from None
        self._stamps[version] = stamp

    async def still(self, versions: Iterable[Digest]) -> None:
        """Whether the folders of these pinned versions are what they were: inode, time and size of every file
        of all of them, and the content of one of them at each call, in turn. Raises CacheDamaged."""
        await asyncio.to_thread(self._still, list(versions))

    def _still(self, versions: list[Digest]) -> None:
        self._turn = [version for version in self._turn if version in versions] or sorted(versions)
        read_next = self._turn.pop(0) if self._turn else None
        for version in versions:
            try:
                same = stamp_of(self.folder(version)) == self._stamps.get(version)
            except OSError:
                same = False
            if same and version != read_next:
                continue
            try:
                self.verify(version, self._known[version])
            except TenonError as error:
                raise CacheDamaged(error.message) from None

    def pin(self, version: Digest, manifest: Manifest) -> None:
        """From now on an engine knows this name: its folder stays as it is."""
        self._known[version] = manifest

    def release(self) -> None:
        """The engine is gone, and every name it knew with it."""
        self._known.clear()

    def sweep(self) -> None:
        """Remove what a killed agent left half-written; once, before anything is fetched."""
        for draft in self._root.glob(f"{_DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)

    def place(self, name: str, files: Mapping[str, bytes]) -> Path:
        """A folder of these files, of an adapter that is nobody's version. Raises CacheUnusable."""
        folder = self._root / name
        try:
            if os.path.lexists(folder):
                found = {path: read_whole(folder, path) for path in stamp_of(folder).files}
                if found == dict(files):
                    return folder
                self._set_aside(folder)
            draft = self._draft()
            try:
                for path, data in files.items():
                    write_new(draft / path, data)
                publish(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            raise CacheUnusable(f"the cache cannot hold {name}: {error.strerror}") from None
        return folder

    def _describe(self, version: Digest, manifest: Manifest) -> None:
        """Before the folder appears, and whole at once: a guard that finds the one finds the other."""
        path = self._root / f"{version.hex}.manifest.json"
        data = manifest.canonical()
        try:
            if read_whole(self._root, path.name) == data:
                return
        except OSError:
            pass
        draft = self._root / f"{_DRAFT}{secrets.token_hex(8)}"
        try:
            write_new(draft, data)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _draft(self) -> Path:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o755)
        draft = self._root / f"{_DRAFT}{secrets.token_hex(8)}"
        draft.mkdir(mode=0o700)
        return draft

    def _set_aside(self, folder: Path) -> None:
        """Kept for whoever wants to know how it was damaged; the next start of the agent ignores it."""
        if not folder.is_symlink():
            folder.chmod(0o755)
        folder.rename(self._root / f".damaged-{folder.name[:16]}-{secrets.token_hex(4)}")


def _write(folder: Path, ref: BlobRef, data: bytes) -> None:
    if len(data) != ref.size or Digest.of(data) != ref.digest:
        raise BlobCorrupt(f"the bytes received for {ref.path} are not {ref.digest.short}", digest=ref.digest)
    write_new(folder / ref.path, data)
