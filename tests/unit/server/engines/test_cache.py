import asyncio
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry.digests import Digest
from registry.errors import BlobCorrupt, BlobNotFound
from registry.manifests import BlobRef, LoraShape, Manifest, Provenance
from server.engines.cache import AdapterCache
from server.engines.errors import CacheDamaged, CacheUnusable
from server.engines.folders import size_of

FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}


class Source:
    """Blobs by digest; counts what is fetched."""

    def __init__(self) -> None:
        self.blobs = {Digest.of(data): data for data in FILES.values()}
        self.fetched: list[Digest] = []

    async def __call__(self, digest: Digest) -> bytes:
        self.fetched.append(digest)
        if digest not in self.blobs:
            raise BlobNotFound(f"no blob {digest.short}")
        return self.blobs[digest]


def manifest() -> Manifest:
    refs = tuple(BlobRef(path=name, digest=Digest.of(data), size=len(data)) for name, data in FILES.items())
    return Manifest(
        tenant="bank_a",
        adapter="assistant",
        base=Digest.of(b"base"),
        lora=LoraShape(rank=4, alpha=8, targets=("q_proj",)),
        files=refs,
        contract=BlobRef(path="contract.json", digest=Digest.of(b"c"), size=1),
        provenance=Provenance(method="upload"),
    )


VERSION = manifest().identity()


def overwrite(path: Path, data: bytes) -> None:
    """Somebody with the rights to: read-only is a reminder, not a wall against root."""
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.fixture
def cache(tmp_path: Path) -> AdapterCache:
    return AdapterCache(tmp_path / "cache")


async def test_a_version_lands_whole_and_read_only_under_its_digest(cache: AdapterCache) -> None:
    source = Source()
    folder = await cache.ensure(VERSION, manifest(), source)
    assert folder.name == VERSION.hex
    assert folder.is_absolute()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert stat.S_IMODE(folder.stat().st_mode) == 0o555
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    await cache.ensure(VERSION, manifest(), source)
    assert len(source.fetched) == 2, "the second time nothing is fetched"


async def test_wrong_bytes_leave_nothing(cache: AdapterCache, tmp_path: Path) -> None:
    source = Source()
    source.blobs[Digest.of(b"weights")] = b"weightz"
    with pytest.raises(BlobCorrupt, match=r"adapter_model\.safetensors"):
        await cache.ensure(VERSION, manifest(), source)
    assert list((tmp_path / "cache").iterdir()) == []


async def test_a_fetch_that_breaks_leaves_nothing(cache: AdapterCache, tmp_path: Path) -> None:
    source = Source()
    del source.blobs[Digest.of(b"weights")]
    with pytest.raises(BlobNotFound):
        await cache.ensure(VERSION, manifest(), source)
    assert list((tmp_path / "cache").iterdir()) == []


async def test_a_file_that_cannot_be_had_ends_the_fetch_of_the_others(cache: AdapterCache) -> None:
    """Somebody asks again in a second: large files would arrive many times side by side."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def fetch(digest: Digest) -> bytes:
        if digest == Digest.of(b"{}"):
            await begun.wait()
            raise BlobNotFound(f"no blob {digest.short}")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b"weights"

    with pytest.raises(BlobNotFound):
        await cache.ensure(VERSION, manifest(), fetch)
    assert ended.is_set()


def numbered(count: int) -> dict[Digest, Manifest]:
    made = [manifest().model_copy(update={"adapter": f"assistant-{number}"}) for number in range(count)]
    return {each.identity(): each for each in made}


async def filled(cache: AdapterCache, count: int) -> list[Digest]:
    """So many versions, in the order in which they were used."""
    for at, (version, document) in enumerate(found := numbered(count).items()):
        await cache.ensure(version, document, Source())
        os.utime(cache.folder(version), (at + 1, at + 1))
    return [version for version, _ in found]


def kept(cache: AdapterCache) -> set[str]:
    """Nothing is there but whole versions and their listings."""
    folders = {path.name for path in cache.root.iterdir() if path.is_dir()}
    listings = {path.name.removesuffix(".manifest.json") for path in cache.root.glob("*.manifest.json")}
    assert folders == listings
    for name in folders:
        assert {path.name for path in (cache.root / name).iterdir()} == set(FILES)
    return folders


def hexes(versions: Iterable[Digest]) -> set[str]:
    return {version.hex for version in versions}


async def test_above_the_limit_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    cache = AdapterCache(tmp_path / "cache")
    first, second, third, fourth = await filled(cache, 4)
    cache.wants(set())
    limited = AdapterCache(cache.root, limit=size_of(cache.root))
    await limited.ensure(first, numbered(1)[first], Source())  # used again: now the second is the oldest
    limited.wants(set())
    await limited.ensure(VERSION, manifest(), Source())
    assert kept(limited) == hexes({first, third, fourth, VERSION})
    assert second.hex not in kept(limited)


async def test_logs_push_no_adapter_out(tmp_path: Path) -> None:
    cache = AdapterCache(tmp_path / "cache")
    versions = await filled(cache, 3)
    limited = AdapterCache(cache.root, limit=size_of(cache.root))
    for name in ("vllm.log", "vllm.log.1", "merge.log"):
        (cache.root / name).write_bytes(bytes(1 << 16))
    cache.wants(set())
    limited.make_room(0)
    assert kept(limited) == hexes(versions)
    limited.make_room(1)
    assert len(kept(limited)) == 2, "adapters do count"


async def test_what_an_engine_knows_or_the_state_wants_never_goes(tmp_path: Path) -> None:
    cache = AdapterCache(tmp_path / "cache", limit=1)
    cache.wants(numbered(3).keys())
    first, second, _ = await filled(cache, 3)
    cache.pin(first, numbered(1)[first])
    cache.wants({second})
    await cache.ensure(VERSION, manifest(), Source())
    assert kept(cache) == hexes({first, second, VERSION}), "a limit that is too small holds nobody up"
    cache.release()
    cache.wants({VERSION})
    fourth = manifest().model_copy(update={"adapter": "fourth"})
    await cache.ensure(fourth.identity(), fourth, Source())
    assert kept(cache) == hexes({VERSION, fourth.identity()})


async def test_what_another_agents_engine_may_read_never_goes(tmp_path: Path) -> None:
    other, mine = AdapterCache(tmp_path / "cache"), AdapterCache(tmp_path / "cache", limit=1)
    (version,) = await filled(other, 1)
    other.pin(version, numbered(1)[version])
    other.wants(set())
    await mine.ensure(VERSION, manifest(), Source())
    assert kept(mine) == hexes({version, VERSION})
    other.release()
    mine.make_room(0)
    assert kept(mine) == hexes({VERSION}), "its own lock keeps it"


async def test_a_full_disk_makes_room_before_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = AdapterCache(tmp_path / "cache")
    _, second = await filled(cache, 2)
    cache.wants(set())
    whole, spare = size_of(cache.root), 1 << 20
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=spare + whole - size_of(folder))
    )
    await cache.ensure(VERSION, manifest(), Source())
    assert kept(cache) == hexes({second, VERSION})


async def test_a_removal_that_breaks_off_leaves_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = AdapterCache(tmp_path / "cache", limit=1)
    (version,) = await filled(cache, 1)
    cache.wants(set())

    def killed(folder: Path) -> None:
        (folder / "adapter_config.json").unlink()
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        cache.make_room(0)
    assert not cache.folder(version).exists()
    AdapterCache(cache.root).sweep()
    assert [path.name for path in cache.root.iterdir()] == [f"{version.hex}.manifest.json"]


async def test_of_what_was_damaged_only_the_newest_is_kept(cache: AdapterCache) -> None:
    for number in range(5):
        folder = await cache.ensure(VERSION, manifest(), Source())
        overwrite(folder / "adapter_model.safetensors", b"DAMAGE%d" % number)
    await cache.ensure(VERSION, manifest(), Source())
    left = cache.root.glob(".damaged-*/adapter_model.safetensors")
    assert {path.read_bytes() for path in left} == {b"DAMAGE2", b"DAMAGE3", b"DAMAGE4"}


async def test_a_manifest_of_another_version_is_refused(cache: AdapterCache) -> None:
    with pytest.raises(CacheUnusable):
        await cache.ensure(Digest.of(b"other"), manifest(), Source())


async def test_a_damaged_folder_is_replaced_while_no_engine_knows_it(cache: AdapterCache) -> None:
    folder = await cache.ensure(VERSION, manifest(), Source())
    overwrite(folder / "adapter_model.safetensors", b"WEIGHTS")
    with pytest.raises(BlobCorrupt):
        cache.verify(VERSION, manifest())
    source = Source()
    again = await cache.ensure(VERSION, manifest(), source)
    assert again == folder
    assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"
    assert source.fetched


async def test_a_folder_that_an_engine_knows_is_never_touched(cache: AdapterCache) -> None:
    folder = await cache.ensure(VERSION, manifest(), Source())
    cache.pin(VERSION, manifest())
    inode = folder.stat().st_ino
    overwrite(folder / "adapter_model.safetensors", b"WEIGHTS")
    with pytest.raises(BlobCorrupt):
        await cache.ensure(VERSION, manifest(), Source())
    assert folder.stat().st_ino == inode
    cache.release()
    await cache.ensure(VERSION, manifest(), Source())
    assert folder.stat().st_ino != inode


@pytest.mark.parametrize("change", ["extra", "missing", "link"])
async def test_a_folder_must_hold_exactly_its_files(cache: AdapterCache, tmp_path: Path, change: str) -> None:
    folder = await cache.ensure(VERSION, manifest(), Source())
    folder.chmod(0o755)
    weights = folder / "adapter_model.safetensors"
    if change == "extra":
        (folder / "tokenizer.json").write_bytes(b"{}")
    else:
        weights.unlink()
    if change == "link":
        (tmp_path / "elsewhere").write_bytes(b"weights")
        weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BlobCorrupt):
        cache.verify(VERSION, manifest())


async def _all_read(cache: AdapterCache, pinned: Iterable[Digest]) -> None:
    for _ in pinned:
        await cache.still(pinned)


async def test_a_file_that_was_written_without_a_trace_is_read_and_found(cache: AdapterCache) -> None:
    """Same inode, size and time: only its content tells, and that is read in turn."""
    other = manifest().model_copy(update={"tenant": "retail_b"})
    pinned = {VERSION: manifest(), other.identity(): other}
    for version, document in pinned.items():
        await cache.ensure(version, document, Source())
        cache.pin(version, document)
    for version in pinned:
        file = cache.folder(version) / "adapter_model.safetensors"
        before = file.stat()
        overwrite(file, b"others!")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = file.stat()
        assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
            before.st_ino,
            before.st_size,
            before.st_mtime_ns,
        )
        with pytest.raises(CacheDamaged):
            await _all_read(cache, pinned)
        overwrite(file, b"weights")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        await _all_read(cache, pinned)
