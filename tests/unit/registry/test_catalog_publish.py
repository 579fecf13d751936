from io import BytesIO
from pathlib import Path

import pytest

from registry.blobs.memory import InMemoryBlobs
from registry.catalog.intake import MAX_FILES
from registry.digests import Digest
from registry.errors import (
    AdapterFileMissing,
    AdapterFileUnexpected,
    AdapterPickle,
    BaseNotFound,
    BlobCorrupt,
    BlobNotFound,
    IntakeRefused,
    InvalidName,
    TenantNotFound,
    VersionRevoked,
)
from registry.manifests import Provenance
from registry.names import AdapterName
from tests.support.adapters import tiny_base, tiny_fingerprint, write_adapter
from tests.support.registries import NAME, World

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def _upload(world: World, folder: Path) -> dict[str, Digest]:
    found = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            found[file.name] = world.blobs.put(stream)[0]
    return found


def _publish(
    world: World, files: dict[str, Digest], *, name: AdapterName = NAME, base: Digest | None = None
) -> Digest:
    return world.catalog.publish(
        name,
        files,
        base=base or world.base,
        fingerprint=tiny_fingerprint(world.base, seed=0),
        provenance=Provenance(method="upload"),
        actor="test",
    )


@pytest.fixture
def files(world: World, tmp_path: Path) -> dict[str, Digest]:
    return _upload(world, write_adapter(tmp_path / "uploaded", tiny_base()[0], seed=0))


def test_published_is_the_same_as_pushed(anywhere: World, tmp_path: Path) -> None:
    uploaded = _upload(anywhere, write_adapter(tmp_path / "uploaded", tiny_base()[0], seed=0))
    version = _publish(anywhere, uploaded)
    size = anywhere.catalog.snapshot().size
    assert anywhere.push(seed=0) == version == _publish(anywhere, uploaded)
    assert anywhere.catalog.snapshot().size == size
    anywhere.catalog.export(version, tmp_path / "out")
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "uploaded" / name).read_bytes()
    assert anywhere.catalog.verify(blobs=True) == []


def test_companions_are_named_and_not_kept(world: World, files: dict[str, Digest]) -> None:
    readme, _ = world.blobs.put(BytesIO(b"hello"))
    version = _publish(world, files | {"README.md": readme})
    assert {file.path for file in world.catalog.manifest(version).files} == {CONFIG, WEIGHTS}


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a/b",
        "",
        ".",
        "..",
        ".hidden",
        "-rf",
        "a\0b",
        "a" * 129,
        "ａdapter",
        "c:x",
        "a b",
    ],
)
def test_names_that_are_no_file_names(
    world: World, files: dict[str, Digest], tmp_path: Path, path: str
) -> None:
    before = {file for file in tmp_path.rglob("*") if ".db" not in file.name}
    with pytest.raises(AdapterFileUnexpected):
        _publish(world, files | {path: files[CONFIG]})
    assert {file for file in tmp_path.rglob("*") if ".db" not in file.name} == before
    assert world.catalog.versions(NAME) == ()


def test_what_intake_refuses(world: World, files: dict[str, Digest]) -> None:
    pickled, _ = world.blobs.put(BytesIO(b"\x80\x04pickle"))
    attempts: list[tuple[dict[str, Digest], type[Exception]]] = [
        ({}, AdapterFileMissing),
        ({CONFIG: files[CONFIG]}, AdapterFileMissing),
        (files | {"extra.json": files[CONFIG]}, AdapterFileUnexpected),
        (files | {"model.pt": pickled}, AdapterPickle),
        (files | {WEIGHTS: pickled}, AdapterPickle),
        (files | {CONFIG: files[WEIGHTS]}, IntakeRefused),
        ({f"f{number}": files[CONFIG] for number in range(MAX_FILES + 1)}, AdapterFileUnexpected),
        (files | {WEIGHTS: Digest.of(b"nowhere")}, BlobNotFound),
        (files | {"README.md": Digest.of(b"nowhere")}, BlobNotFound),
    ]
    for wanted, error in attempts:
        with pytest.raises(error):
            _publish(world, wanted)
    with pytest.raises(TenantNotFound):
        _publish(world, files, name=AdapterName("nobody", "assistant"))
    with pytest.raises(InvalidName):
        _publish(world, files, name=AdapterName("bank_a", "../x"))
    with pytest.raises(BaseNotFound):
        _publish(world, files, base=Digest.of(b"nowhere"))
    assert world.catalog.versions(NAME) == ()


def test_damaged_bytes_are_not_published(world: World, files: dict[str, Digest]) -> None:
    assert isinstance(world.blobs, InMemoryBlobs)
    world.blobs._data[files[WEIGHTS]] = b"other bytes"
    with pytest.raises(BlobCorrupt):
        _publish(world, files)
    assert world.catalog.versions(NAME) == ()


def test_a_revoked_version_does_not_come_back(world: World, files: dict[str, Digest]) -> None:
    version = _publish(world, files)
    world.catalog.revoke(version, reason="x", actor="test")
    with pytest.raises(VersionRevoked):
        _publish(world, files)
