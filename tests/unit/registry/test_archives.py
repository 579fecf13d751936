"""Archives of adapters: what packers write is read, what tricks unpackers is refused."""

import gzip
import io
import os
import stat
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.archives import unpacked
from registry.errors import AdapterArchiveInvalid

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = {CONFIG: b'{"r": 4}', WEIGHTS: bytes(range(256)) * 20}


def tarred(files: dict[str, bytes], *, mode: str = "w", style: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=style) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5  # a fraction: PAX writes an extension header
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def read(tmp_path: Path, data: bytes) -> dict[str, bytes]:
    file = tmp_path / "archive"
    file.write_bytes(data)
    with unpacked(file) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not folder.exists()
    return found


def refused(tmp_path: Path, data: bytes, words: str) -> None:
    before = set(tmp_path.parent.rglob("*"))
    file = tmp_path / "archive"
    file.write_bytes(data)
    with pytest.raises(AdapterArchiveInvalid, match=words) as caught, unpacked(file):
        pass
    assert str(tmp_path) not in caught.value.message
    assert set(tmp_path.parent.rglob("*")) - before <= {file}


@pytest.mark.parametrize(
    "data",
    [
        tarred(FILES),
        tarred(FILES, style=tarfile.USTAR_FORMAT),
        tarred(FILES, style=tarfile.GNU_FORMAT),
        tarred(FILES, mode="w:gz"),
        tarred({f"./{name}": data for name, data in FILES.items()}),
        tarred({f"adapter/{name}": data for name, data in FILES.items()}, mode="w:gz"),
        tarred({f"{'a' * 120}/{name}": data for name, data in FILES.items()}, style=tarfile.USTAR_FORMAT),
        zipped(FILES),
        zipped(FILES, method=zipfile.ZIP_STORED),
        zipped({f"my-adapter/{name}": data for name, data in FILES.items()}),
        zipped({"top/": b"", **{f"top/{name}": data for name, data in FILES.items()}}),
    ],
)
def test_what_packers_write(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) == FILES


def test_a_folder_packed_by_tar_itself(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    for top in (".", "adapter"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            tar.add(folder, arcname=top)
        assert read(tmp_path, out.getvalue()) == FILES


NAMES = [
    "../adapter_config.json",
    "a/../../adapter_config.json",
    "/etc/adapter_config.json",
    "//adapter_config.json",
    "a//adapter_config.json",
    "a\\..\\adapter_config.json",
    "C:adapter_config.json",
    "-rf",
    "..",
    "...",
    "a/.",
    "a/..",
    "a b",
    "a\n",
    "ä.json",
    "adapter_config\u200b.json",
    "ａdapter_config.json",
    "%2e%2e%2fadapter_config.json",
    "a" * 130,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pack", [tarred, zipped])
def test_names_that_lead_elsewhere(
    tmp_path: Path, name: str, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    refused(tmp_path, pack({name: b"x"}), "no plain name|folder inside|name is too long or not ASCII")


@pytest.mark.parametrize("pack", [tarred, zipped])
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a/b/c": b""}, "folder inside a folder"),
        ({"a/x": b"", "b/x": b""}, "more than one folder"),
        ({"a/x": b"", "x": b""}, "more than one folder"),
        ({"x": b"", "a/x": b""}, "more than one folder"),
        ({"x": b"", "X": b""}, "only in case"),
        ({"a/x": b"", "A/y": b""}, "more than one folder"),
        ({f"f{number}": b"" for number in range(65)}, "more than 64 members"),
        ({}, "holds no files|ends too early"),
    ],
)
def test_layouts_that_no_packer_of_an_adapter_makes(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes], files: dict[str, bytes], words: str
) -> None:
    refused(tmp_path, pack(files), words)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice(tmp_path: Path) -> None:
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("x", b"1")
        archive.writestr("x", b"2")
    refused(tmp_path, twice.getvalue(), "comes twice")
    end = b"\0" * 1024
    one = tarred({"x": b"1"}, style=tarfile.USTAR_FORMAT)[:1024]
    refused(tmp_path, one + one + end, "comes twice")


def special(kind: bytes, target: str = "/etc/passwd") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(CONFIG)
        info.type, info.linkname = kind, target
        tar.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
        tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, b"Z",
    ],
)  # fmt: skip
def test_tar_members_that_are_no_files(tmp_path: Path, kind: bytes) -> None:
    refused(tmp_path, special(kind), "no file|ends too early")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_zip_members_that_are_no_files(tmp_path: Path, mode: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(CONFIG)
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path, out.getvalue(), "link or a device")


def test_a_name_with_nul(tmp_path: Path) -> None:
    data = zipped({"adapter_configXjson": b"x"}).replace(b"configX", b"config\0")
    refused(tmp_path, data, "no plain name")
    block = bytearray(tarred({"adapter_config.json": b""}, style=tarfile.USTAR_FORMAT))
    block[10] = 0
    refused(tmp_path, with_checksum(block), "behind its end")


def test_a_header_whose_checksum_is_wrong(tmp_path: Path) -> None:
    block = bytearray(tarred({CONFIG: b""}, style=tarfile.USTAR_FORMAT))
    block[0:1] = b"b"
    refused(tmp_path, bytes(block), "checksum")
    assert read(tmp_path, with_checksum(block)) == {"b" + CONFIG[1:]: b""}


def test_an_empty_folder_inside_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, zipped({"top/inner/": b"", "top/x": b""}), "folder inside a folder")


def with_checksum(data: bytearray) -> bytes:
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    return bytes(data)


@pytest.mark.parametrize(
    ("flag", "method", "words"),
    [(0x1, 8, "encrypted"), (0, 12, "unusual"), (0, 14, "unusual"), (0, 99, "unusual")],
)
def test_zip_members_that_need_more_than_inflating(
    tmp_path: Path, flag: int, method: int, words: str
) -> None:
    data = bytearray(zipped({"x": b"1"}))
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<HH", data, at + 8, flag, method)
    refused(tmp_path, bytes(data), words)


def test_a_zip_name_that_is_not_the_utf8_it_claims(tmp_path: Path) -> None:
    """Found by fuzzing."""
    refused(tmp_path, zipped({"ä": b"1"}).replace("ä".encode(), b"\xc3\xc3"), "damaged")


def test_bombs_stop_early(tmp_path: Path) -> None:
    zeros = bytes(64 << 20)
    for data in (
        zipped({WEIGHTS: zeros}),
        gzip.compress(tarred({WEIGHTS: zeros}), 9),
        gzip.compress(zeros),
        gzip.compress(tarred({"x": b"1"}) + zeros),  # behind the end of the tar
    ):
        assert len(data) < 70_000
        started = time.process_time()
        refused(tmp_path, data, "100 times its own size|goes on|holds no files")
        assert time.process_time() - started < 2


def test_a_size_that_lies(tmp_path: Path) -> None:
    """The counter believes what comes out, not what the header says."""
    data = bytearray(zipped({WEIGHTS: bytes(8 << 20)}))
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 10)
    refused(tmp_path, bytes(data), "damaged|times its own size")


def test_an_extension_header_of_a_gigabyte(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    refused(tmp_path, info.tobuf(tarfile.USTAR_FORMAT), "extension header is too long")
    info.size = 20
    for records in (b"11 path=ab\n", b"3 a", b"-1 a=b\n", b"99 a=b\n", b"6 a=bc", b"x" * 20):
        info.size = len(records)
        data = info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0") + bytes(1024)
        refused(tmp_path, data, "cannot be read|too long or not ASCII")


def test_a_table_of_contents_of_a_million_members(tmp_path: Path) -> None:
    data = zipped({"x": b"1"})
    end = bytearray(data[-22:])
    struct.pack_into("<I", end, 12, 40 << 20)
    refused(tmp_path, data[:-22] + bytes(end), "table of contents")
    locator = b"PK\x06\x07" + bytes(16)
    refused(tmp_path, data[:-22] + locator + data[-22:], "4 GiB")


@pytest.mark.parametrize("pack", [tarred, zipped])
def test_files_that_are_two_things_at_once(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    sound = pack({"x": b"1"})
    refused(tmp_path, sound + b"MZ more", "does not end|goes on")
    refused(tmp_path, b"#!/bin/sh\n" + bytes(502) + sound, "no .zip|checksum|holds no files")
    refused(tmp_path, b"PK\x03\x04" + sound, "before or behind|no .zip|does not end")


@pytest.mark.parametrize("pack", [tarred, zipped, lambda files: gzip.compress(tarred(files))])
def test_every_cut_is_refused(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    data = pack({"x": b"1" * 600})
    cuts = range(0, len(data), 97)
    for cut in cuts:
        file = tmp_path / "archive"
        file.write_bytes(data[:cut])
        try:
            with unpacked(file) as folder:
                assert (folder / "x").read_bytes() == b"1" * 600  # only padding was cut off
        except AdapterArchiveInvalid:
            continue
        assert cut > 1500


def test_what_is_no_archive(tmp_path: Path) -> None:
    for data in (
        b"",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"Rar!\x1a\x07\0",
        b"BZh91AY",
        b"\xfd7zXZ\0",
        os.urandom(3000),
    ):
        refused(tmp_path, data, "archive")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AdapterArchiveInvalid, match="regular"), unpacked(tmp_path / "pipe"):
        pass
