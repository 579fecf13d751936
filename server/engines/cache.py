"""The node's adapters on disk, one read-only folder a version, named by its digest.

vLLM may read a folder again at any time and believes whatever it finds (D3), and dies when the folder is gone
(D4). So a folder appears whole and verified or not at all, is never written again, and is never removed or
replaced while an engine knows its name. Beside ``<hex>/`` lies ``<hex>.manifest.json``, whose digest is the
version: whoever reads the folder can check it without asking anybody.

Where room is needed, versions go that no engine knows and that the state does not want here, the one used
longest ago first. Who uses a folder holds a lock (``flock``) on it, which another agent on this cache sees.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from pathlib import Path

from registry.digests import Digest
from registry.errors import BlobCorrupt, TenonError
from registry.manifests import BlobRef, Manifest
from server.engines.errors import CacheDamaged, CacheUnusable
from server.engines.folders import Stamp, publish, read_whole, remove, size_of, stamp_of, write_new
from server.engines.output import size_of_logs

Fetch = Callable[[Digest], Awaitable[bytes]]
_DRAFT = ".draft-"
_DAMAGED = ".damaged-"
_KEPT = 3
"""Damaged folders, the newest: each may be as large as an adapter."""
_SPARE = 1 << 20
"""Bytes that stay free on the disk: for listings, counters and what file systems round up."""
_VERSION = re.compile(r"[0-9a-f]{64}", re.ASCII)


class AdapterCache:
    """One per engine; two engines on one node use two roots."""

    def __init__(self, root: Path, *, limit: int | None = None) -> None:
        """``limit``: bytes of everything below ``root``, but for logs in it, above which versions that nobody
        needs go. None: only when the disk is full."""
        self._root = root.absolute()
        self._limit = limit
        self._known: dict[Digest, Manifest] = {}
        self._stamps: dict[Digest, Stamp] = {}
        self._turn: list[Digest] = []
        """Pinned versions in the order in which they are read in full again."""
        self._wanted: frozenset[Digest] = frozenset()
        self._locks: dict[Digest, int] = {}
        """Open folders, locked for as long as this agent or its engine may read them."""

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
                await asyncio.to_thread(self._hold, version, manifest)
            except BlobCorrupt:
                if version in self._known:
                    raise
                await asyncio.to_thread(self._set_aside, folder)
            else:
                await asyncio.to_thread(self._describe, version, manifest)
                return folder
        await asyncio.to_thread(self.make_room, sum(ref.size for ref in manifest.files))
        draft = await asyncio.to_thread(self._draft)
        try:
            blobs = await _all(fetch, manifest.files)
            for ref, data in zip(manifest.files, blobs, strict=True):
                await asyncio.to_thread(_write, draft, ref, data)
            await asyncio.to_thread(self._describe, version, manifest)
            await asyncio.to_thread(publish, draft, folder)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)
            raise
        await asyncio.to_thread(self._hold, version, manifest)
        return folder

    def _hold(self, version: Digest, manifest: Manifest) -> None:
        """Nobody else removes it from now on, and it is what it should be: in this order. Raises BlobCorrupt,
        and OSError while somebody removes it."""
        try:
            descriptor = os.open(self.folder(version), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise _unreadable(version, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self.verify(version, manifest)
            own = os.fstat(descriptor)
            if (own.st_dev, own.st_ino) != self._stamps[version].folder:
                raise BlobCorrupt(f"the cached folder of {version.short} changed while it was read")
            os.utime(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if (before := self._locks.pop(version, None)) is not None:
            os.close(before)
        self._locks[version] = descriptor

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
            raise _unreadable(version, error) from None
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

    def unpin(self, version: Digest) -> None:
        """The engine did not take this name."""
        self._known.pop(version, None)

    def wants(self, versions: Set[Digest]) -> None:
        """Of all versions, the state wants these here: they stay, whether an engine knows them or not."""
        self._wanted = frozenset(versions)
        for version in self._locks.keys() - self._wanted - self._known.keys():
            os.close(self._locks.pop(version))

    def release(self) -> None:
        """The engine is gone, and every name it knew with it."""
        for version in self._known.keys() & self._locks.keys():
            os.utime(self._locks[version])  # used until now
        self._known.clear()
        self.wants(self._wanted)

    def make_room(self, need: int) -> None:
        """For so many bytes more, as far as that can be."""
        used = size_of(self._root) - size_of_logs(self._root)
        with contextlib.suppress(OSError):
            over = need + _SPARE - shutil.disk_usage(self._root).free
            over = over if self._limit is None else max(over, used + need - self._limit)
            for folder in self._oldest_first() if over > 0 else ():
                over -= self._drop(folder)
                if over <= 0:
                    return

    def _oldest_first(self) -> list[Path]:
        found = [path for path in self._root.iterdir() if _VERSION.fullmatch(path.name)]
        return sorted(found, key=lambda path: path.lstat().st_mtime_ns)

    def _drop(self, folder: Path) -> int:
        """How many bytes that gave; 0 when somebody needs it. Never leaves half a folder under its name."""
        version = Digest(f"sha256:{folder.name}")
        if version in self._wanted:
            return 0
        gone = self._root / f"{_DRAFT}{secrets.token_hex(8)}"
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                folder.chmod(0o755)
                folder.rename(gone)
            finally:
                os.close(descriptor)
            size = size_of(gone)
            remove(gone)
            self._listing(version).unlink(missing_ok=True)
        except OSError:
            return 0
        return size

    def sweep(self) -> None:
        """Remove what a killed agent left half-written; once, before anything is fetched."""
        for draft in self._root.glob(f"{_DRAFT}*"):
            with contextlib.suppress(OSError):
                remove(draft)
        self._forget_damaged()

    def place(self, name: str, files: Mapping[str, bytes]) -> Path:
        """A folder of these files, of an adapter that is nobody's version. Raises CacheUnusable."""
        folder = self._root / name
        try:
            if os.path.lexists(folder):
                found = {path: read_whole(folder, path) for path in stamp_of(folder).files}
                if found == dict(files):
                    return folder
                self._set_aside(folder)
            self.make_room(sum(map(len, files.values())))
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
        path = self._listing(version)
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

    def _listing(self, version: Digest) -> Path:
        return self._root / f"{version.hex}.manifest.json"

    def _draft(self) -> Path:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o755)
        draft = self._root / f"{_DRAFT}{secrets.token_hex(8)}"
        draft.mkdir(mode=0o700)
        return draft

    def _set_aside(self, folder: Path) -> None:
        """Kept for a while, for whoever wants to know how it was damaged."""
        if not folder.is_symlink():
            folder.chmod(0o755)
        folder.rename(self._root / f"{_DAMAGED}{folder.name[:16]}-{secrets.token_hex(4)}")
        self._forget_damaged()

    def _forget_damaged(self) -> None:
        """All but the newest: a rename changes the ctime."""
        with contextlib.suppress(OSError):
            aside = sorted(self._root.glob(f"{_DAMAGED}*"), key=lambda path: path.lstat().st_ctime_ns)
            for folder in aside[:-_KEPT]:
                remove(folder)


async def _all(fetch: Fetch, files: Iterable[BlobRef]) -> list[bytes]:
    """Side by side; the first that fails ends the others."""
    fetching = [asyncio.ensure_future(fetch(ref.digest)) for ref in files]
    try:
        return await asyncio.gather(*fetching)
    finally:
        for each in fetching:
            each.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)


def _unreadable(version: Digest, error: OSError) -> BlobCorrupt:
    return BlobCorrupt(f"the cached folder of {version.short} cannot be read: {error.strerror}")


def _write(folder: Path, ref: BlobRef, data: bytes) -> None:
    if len(data) != ref.size or Digest.of(data) != ref.digest:
        raise BlobCorrupt(f"the bytes received for {ref.path} are not {ref.digest.short}", digest=ref.digest)
    write_new(folder / ref.path, data)
