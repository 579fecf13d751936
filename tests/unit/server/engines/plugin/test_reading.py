"""What is parsed is what was verified."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.names import engine_name
from server.engines.plugin.reading import NULL, BytesWrong, sealed
from tests.support.node_cache import version_in


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}


def test_verified_bytes_are_handed_over_and_nobody_can_write_them(cache: Path, scratch: Path) -> None:
    version = version_in(cache, FILES)
    with sealed(engine_name(version), str(cache / version.hex), cache=cache, scratch=scratch) as (
        reading,
        folder,
    ):
        assert (reading.name, reading.digest) == (engine_name(version), version)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
        assert folder.stat().st_mode & 0o077 == 0
        with pytest.raises(PermissionError):
            (folder / "adapter_model.safetensors").write_bytes(b"others!")
        (cache / version.hex / "adapter_model.safetensors").write_bytes(b"others!")
        assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"
    assert list(scratch.iterdir()) == []


def test_a_scratch_folder_that_is_gone_is_made_again(cache: Path, scratch: Path) -> None:
    """Not to be taken for an adapter that is gone."""
    version = version_in(cache, FILES)
    scratch.rmdir()
    with sealed(engine_name(version), str(cache / version.hex), cache=cache, scratch=scratch) as (_, folder):
        assert {path.name for path in folder.iterdir()} == set(FILES)


def test_a_mapping_outlives_the_folder_and_stays(cache: Path, scratch: Path) -> None:
    import mmap

    version = version_in(cache, FILES)
    opened = sealed(engine_name(version), str(cache / version.hex), cache=cache, scratch=scratch)
    with opened as (_, folder), (folder / "adapter_model.safetensors").open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    (cache / version.hex / "adapter_model.safetensors").write_bytes(b"others!")
    assert mapped[:] == b"weights"
    mapped.close()


def _swapped(folder: Path, _manifest: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"others!")


def _longer(folder: Path, _manifest: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"weights and more")


def _linked(folder: Path, _manifest: Path) -> None:
    target = folder.parent / "same"
    (folder / "adapter_model.safetensors").rename(target)
    (folder / "adapter_model.safetensors").symlink_to(target)


def _pipe(folder: Path, _manifest: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    os.mkfifo(folder / "adapter_model.safetensors")


def _one_more(folder: Path, _manifest: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"read when the other is gone")


def _linked_folder(folder: Path, _manifest: Path) -> None:
    folder.rename(folder.parent / "moved")
    folder.symlink_to(folder.parent / "moved")


def _other_manifest(_folder: Path, manifest: Path) -> None:
    manifest.write_bytes(manifest.read_bytes().replace(b'"acme"', b'"evil"'))


@pytest.mark.parametrize(
    "change", [_swapped, _longer, _linked, _pipe, _one_more, _linked_folder, _other_manifest]
)
def test_whatever_is_not_the_version(
    change: Callable[[Path, Path], None], cache: Path, scratch: Path
) -> None:
    version = version_in(cache, FILES)
    folder = cache / version.hex
    change(folder, cache / f"{version.hex}.manifest.json")
    with (
        pytest.raises(BytesWrong),
        sealed(engine_name(version), str(folder), cache=cache, scratch=scratch),
    ):
        pass
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("gone", ["adapter_model.safetensors", "", "manifest"])
def test_what_is_not_there(gone: str, cache: Path, scratch: Path) -> None:
    version = version_in(cache, FILES)
    folder = cache / version.hex
    if gone == "manifest":
        (cache / f"{version.hex}.manifest.json").unlink()
    elif gone:
        (folder / gone).unlink()
    else:
        folder.rename(cache / "elsewhere")
    expected = BytesWrong if gone.endswith("safetensors") else FileNotFoundError
    with pytest.raises(expected), sealed(engine_name(version), str(folder), cache=cache, scratch=scratch):
        pass


def test_names_and_places_of_others(cache: Path, scratch: Path) -> None:
    version, other = version_in(cache, FILES), version_in(cache, FILES, adapter="other")
    for name, path in (
        ("acme", str(cache / version.hex)),
        ("tenon-" + "A" * 64, str(cache / ("A" * 64))),
        (engine_name(version), str(cache / other.hex)),
        (engine_name(version), f"{cache}/../cache/{version.hex}"),
        (engine_name(version), str(scratch / version.hex)),
        (engine_name(Digest.of(b"none")), str(cache / version.hex)),
    ):
        with pytest.raises(ValueError, match=r"name|cache"), sealed(name, path, cache=cache, scratch=scratch):
            pass


def test_the_null_adapter_needs_no_manifest(cache: Path, scratch: Path) -> None:
    folder = cache / NULL
    folder.mkdir()
    with pytest.raises(FileNotFoundError), sealed(NULL, str(folder), cache=cache, scratch=scratch):
        pass
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    with sealed(NULL, str(folder), cache=cache, scratch=scratch) as (reading, private):
        assert reading.digest is None
        assert {path.name for path in private.iterdir()} == set(FILES)


def test_what_is_handed_over_cannot_be_written_in_place(cache: Path, scratch: Path) -> None:
    """Without a change of its size, through a descriptor or a mapping: that is what would reach the slots."""
    import mmap

    version = version_in(cache, FILES)
    with sealed(engine_name(version), str(cache / version.hex), cache=cache, scratch=scratch) as (_, folder):
        descriptor = os.open(folder / "adapter_model.safetensors", os.O_RDWR)
        try:
            with pytest.raises(PermissionError):
                os.pwrite(descriptor, b"others!", 0)
            with pytest.raises(PermissionError):
                mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE)
        finally:
            os.close(descriptor)
        assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"
