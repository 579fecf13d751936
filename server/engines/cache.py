"""The node's adapters on disk, one read-only folder a version, named by its digest.

vLLM may read a folder again at any time and believes whatever it finds (D3), and dies when the folder is gone
(D4). So a folder appears whole and verified or not at all, is never written again, and is never removed or
replaced while an engine knows its name.
"""

import asyncio
import os
import secrets
import shutil
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from registry.digests import Digest
from registry.errors import BlobCorrupt
from registry.manifests import BlobRef, Manifest
from server.engines.errors import CacheUnusable

Fetch = Callable[[Digest], Awaitable[bytes]]


class AdapterCache:
    """One per engine; two engines on one node use two roots."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: set[Digest] = set()

    def folder(self, version: Digest) -> Path:
        return self._root.absolute() / version.hex

    async def ensure(self, version: Digest, manifest: Manifest, fetch: Fetch) -> Path:
        """The verified folder of ``version``, fetched blob by blob when it is not there.

        A damaged folder is set aside and fetched again, unless an engine knows its name: then BlobCorrupt,
        because replacing files under a running engine is the very thing to prevent.
        """
        if manifest.identity() != version:
            raise CacheUnusable(f"the manifest is not the one of {version.short}")
        folder = self.folder(version)
        if await asyncio.to_thread(folder.is_dir):
            try:
                await asyncio.to_thread(self.verify, version, manifest)
            except BlobCorrupt:
                if version in self._known:
                    raise
                await asyncio.to_thread(self._set_aside, folder)
            else:
                return folder
        draft = await asyncio.to_thread(self._draft)
        try:
            for ref in manifest.files:
                await asyncio.to_thread(_write, draft, ref, await fetch(ref.digest))
            await asyncio.to_thread(_publish, draft, folder)
        except BaseException:
            await asyncio.to_thread(_remove, draft)
            raise
        await asyncio.to_thread(self.verify, version, manifest)
        return folder

    def verify(self, version: Digest, manifest: Manifest) -> None:
        """Read everything back and compare. Raises BlobCorrupt, naming the file."""
        folder = self.folder(version)
        present = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
        if present != {ref.path for ref in manifest.files}:
            raise BlobCorrupt(f"the cached folder of {version.short} holds other files than its manifest")
        for ref in manifest.files:
            path = folder / ref.path
            if not stat.S_ISREG(path.lstat().st_mode) or Digest.of_file(path) != ref.digest:
                raise BlobCorrupt(f"{ref.path} in the cache is not {ref.digest.short}", digest=ref.digest)

    def pin(self, version: Digest) -> None:
        """From now on an engine knows this name: its folder stays as it is."""
        self._known.add(version)

    def release(self) -> None:
        """The engine is gone, and every name it knew with it."""
        self._known.clear()

    def _draft(self) -> Path:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o755)
        draft = self._root / f".draft-{secrets.token_hex(8)}"
        draft.mkdir(mode=0o700)
        return draft

    def _set_aside(self, folder: Path) -> None:
        """Kept for whoever wants to know how it was damaged; the next start of the agent ignores it."""
        folder.chmod(0o755)
        folder.rename(self._root / f".damaged-{folder.name[:16]}-{secrets.token_hex(4)}")


def _write(folder: Path, ref: BlobRef, data: bytes) -> None:
    if len(data) != ref.size or Digest.of(data) != ref.digest:
        raise BlobCorrupt(f"the bytes received for {ref.path} are not {ref.digest.short}", digest=ref.digest)
    descriptor = os.open(folder / ref.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _publish(draft: Path, folder: Path) -> None:
    """After this, a crash leaves the whole folder or none. The rename fails when ``folder`` has content."""
    _sync(draft)
    draft.rename(folder)
    folder.chmod(0o555)  # after the rename: some file systems want a writable folder to move it
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(draft: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)
