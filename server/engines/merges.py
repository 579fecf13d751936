"""Bases with a version merged into their weights: made once on this machine, kept by the version's digest."""

import asyncio
import contextlib
import os
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
from server.engines.folders import publish, read_whole, remove, size_of, stamp_of, write_new
from server.engines.ports import ControlPlane
from server.engines.process import EngineProcess
from server.engines.sizes import RANKS
from server.engines.state import Event, Report

_DRAFT = ".draft-"
_SUFFIX = ".merged"
_KEPT = 2
"""The one in use and the one before it, as going back is common; each is as large as a whole base."""


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
        again: float,
    ) -> None:
        """``base``: folder of the base's files. ``done``: called whenever a merge ended, well or badly.
        ``again``: seconds after which one that failed is tried again."""
        self._cache = cache
        self._control = control
        self._base = base
        self._program = program
        self._environment = environment
        self._log = log
        self._report = report
        self._done = done
        self._again = again
        self._running: dict[Digest, asyncio.Task[None]] = {}
        self._made: dict[Digest, Path] = {}
        self._failed: dict[Digest, tuple[float, TenonError]] = {}
        """When, and why."""

    def ready(self, version: Digest) -> bool:
        return version in self._made

    def start(self, version: Digest, base: Base) -> None:
        """In the background, as the engine serves on; harmless when it is under way or has just failed."""
        if version not in self._running and self._just_failed(version) is None:
            self._running[version] = asyncio.create_task(self._quietly(version, base))

    async def folder(self, version: Digest, base: Base) -> Path:
        """Made now, or earlier and still what it was. Raises MergeFailed, CacheUnusable, IntakeRefused, and
        what the control plane raises; the same again for a while."""
        if (known := self._just_failed(version)) is not None:
            raise known
        try:
            folder = await asyncio.to_thread(self._verified, version)
            if folder is None:
                folder = await self._make(version, base)
        except OSError as error:
            failed = CacheUnusable(f"{version.short} cannot be merged: {error.strerror}")
            self._failed[version] = self._now(), failed
            raise failed from None
        except TenonError as error:
            self._failed[version] = self._now(), error
            raise
        self._failed.pop(version, None)
        self._made[version] = folder
        return folder

    def why_not(self, version: Digest) -> str:
        """Why it could not be merged the last time; empty when nothing is known against it."""
        known = self._failed.get(version)
        return "" if known is None else known[1].message

    def begin(self, version: Digest) -> None:
        """A vLLM starts from it now, and none runs: merges that were used longest ago are removed."""
        with contextlib.suppress(OSError):
            os.utime(self._listing(version))
            listings = sorted(
                self._cache.root.glob(f"*{_SUFFIX}.json"), key=lambda path: path.stat().st_mtime_ns
            )
            for listing in listings[:-_KEPT]:
                remove(listing.with_suffix(""))
                listing.unlink()
        self._made = {known: folder for known, folder in self._made.items() if folder.exists()}

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
        await asyncio.to_thread(self._cache.make_room, await asyncio.to_thread(size_of, self._base))
        draft = self._cache.root / f"{_DRAFT}{secrets.token_hex(8)}"
        draft.mkdir(mode=0o700)
        merged = draft / "base"
        child = EngineProcess(
            argv=(*self._program, str(self._base), str(adapter), str(merged)),
            environment=self._environment,
            log=self._log,
            grace=1.0,
        )
        try:
            child.start()
            if (status := await child.wait()) != 0:
                raise MergeFailed(f"merging {version.short} ended with status {status}", log=child.tail())
            return await asyncio.to_thread(self._keep, version, merged)
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
        listing.unlink(missing_ok=True)
        remove(folder)
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
        return self._cache.root / f"{version.hex}{_SUFFIX}"

    def _listing(self, version: Digest) -> Path:
        return self._cache.root / f"{version.hex}{_SUFFIX}.json"

    def _just_failed(self, version: Digest) -> TenonError | None:
        known = self._failed.get(version)
        return known[1] if known is not None and self._now() - known[0] < self._again else None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
