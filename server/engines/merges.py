"""Bases with a version merged into their weights: made once on this machine, kept by the version's digest."""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from registry.canonical import Document, encode
from registry.digests import Digest
from registry.errors import InvalidDocument, TenonError
from registry.intake import inspect
from registry.models import Base
from server.engines.cache import AdapterCache
from server.engines.errors import CacheUnusable, MergeFailed
from server.engines.folders import publish, read_whole, stamp_of, write_new
from server.engines.ports import ControlPlane
from server.engines.process import EngineProcess
from server.engines.spec import RANKS
from server.engines.state import Event, Report

_DRAFT = ".draft-"


class Inventory(Document):
    """Every file of a merged base: what it was when it was made."""

    version: Digest
    files: dict[str, Digest]


class Merges:
    """``program BASE ADAPTER OUT`` merges in a process of its own: torch never enters the agent."""

    def __init__(
        self,
        *,
        cache: AdapterCache,
        control: ControlPlane,
        base: Path | None,
        program: tuple[str, ...],
        environment: Mapping[str, str],
        log: Path,
        report: Report,
        done: Callable[[], None],
    ) -> None:
        """``base``: folder of the base's files. ``done``: called whenever a merge ended, well or badly."""
        self._cache = cache
        self._control = control
        self._base = base
        self._program = program
        self._environment = environment
        self._log = log
        self._report = report
        self._done = done
        self._running: dict[Digest, asyncio.Task[None]] = {}
        self._made: dict[Digest, Path] = {}

    def ready(self, version: Digest) -> bool:
        return version in self._made

    def start(self, version: Digest, base: Base) -> None:
        """In the background, while the engine serves on; harmless when it is under way."""
        if version not in self._running:
            self._running[version] = asyncio.create_task(self._quietly(version, base))

    async def folder(self, version: Digest, base: Base) -> Path:
        """Made now, or earlier and still what it was. Raises MergeFailed, CacheUnusable, and what the control
        plane raises."""
        try:
            folder = await asyncio.to_thread(self._verified, version)
            if folder is None:
                folder = await self._make(version, base)
        except OSError as error:
            raise CacheUnusable(f"{version.short} cannot be merged: {error.strerror}") from None
        self._made[version] = folder
        return folder

    async def close(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _quietly(self, version: Digest, base: Base) -> None:
        try:
            await self.folder(version, base)
        except TenonError as error:
            self._report(Event("waiting", f"{version.short}: {error.message}", version))
        finally:
            self._running.pop(version, None)
            self._done()

    async def _make(self, version: Digest, base: Base) -> Path:
        if self._base is None:
            raise MergeFailed("the base is no folder on this machine")
        manifest = await self._control.manifest(version)
        if manifest.base != base.identity():
            raise MergeFailed(f"{version.short} was trained on another base")
        adapter = await self._cache.ensure(version, manifest, self._control.blob)
        await asyncio.to_thread(inspect, adapter, base=base, max_rank=RANKS[-1])
        self._report(Event("merging", version.short, version))
        draft = self._cache.root / f"{_DRAFT}{secrets.token_hex(8)}"
        child = EngineProcess(
            argv=(*self._program, str(self._base), str(adapter), str(draft)),
            environment=self._environment,
            log=self._log,
            grace=1.0,
        )
        try:
            child.start()
            if (status := await child.wait()) != 0:
                raise MergeFailed(f"merging {version.short} ended with status {status}", log=child.tail())
            return await asyncio.to_thread(self._keep, version, draft)
        finally:
            await child.stop()
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)

    def _keep(self, version: Digest, draft: Path) -> Path:
        folder = self._place(version)
        found = Inventory(
            version=version, files={name: Digest.of_file(draft / name) for name in stamp_of(draft).files}
        )
        for name in found.files:
            (draft / name).chmod(0o444)
        listing = self._listing(version)
        if folder.exists():
            folder.chmod(0o755)
            shutil.rmtree(folder)
        listing.unlink(missing_ok=True)
        write_new(listing, encode(found.model_dump(mode="json")))
        publish(draft, folder)
        return folder

    def _verified(self, version: Digest) -> Path | None:
        folder, listing = self._place(version), self._listing(version)
        try:
            found = Inventory.parse(read_whole(listing.parent, listing.name))
            names = set(stamp_of(folder).files)
        except (OSError, InvalidDocument):
            return None
        if found.version != version or names != set(found.files):
            return None
        with contextlib.suppress(OSError):
            if all(Digest.of_file(folder / name) == digest for name, digest in found.files.items()):
                return folder
        return None

    def _place(self, version: Digest) -> Path:
        return self._cache.root / f"{version.hex}.merged"

    def _listing(self, version: Digest) -> Path:
        return self._cache.root / f"{version.hex}.merged.json"
