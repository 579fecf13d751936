"""A PEFT folder out of a .zip, .tar or .tar.gz, without trust.

What unpackers are tricked with is not repaired but refused: an archive of an adapter holds a few plain files,
alone or in one folder. Nothing is ever written outside a folder that this process made for itself, and no
declared size is believed: what comes out is counted while it comes out. Tar is read here and not by
``tarfile``, which reads extension headers of any size into memory and follows their rules about names.
"""

import gzip
import os
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol

from registry.errors import AdapterArchiveInvalid

MAX_MEMBERS = 64
"""Of files and folders; what PEFT and a trainer leave beside an adapter are about fifteen."""
MAX_UNPACKED = 8 << 30
"""Bytes in all. Rank 64 on every layer of a 70B base is about 3.3 GB in bfloat16."""
MAX_RATIO = 100
"""Unpacked bytes per packed byte. Weights pack to nine tenths, JSON to a tenth; deflate reaches 1032."""
SLACK = 1 << 20
"""Bytes that may come out of anything: a small archive of small texts packs well."""
MAX_EXTENSION = 64 << 10
"""Bytes of a tar extension header; times and owners need a few hundred."""
MAX_DIRECTORY = 1 << 20
"""Bytes of a zip's table of contents: it is read at once."""
_BROKEN = (
    zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError,
)  # fmt: skip
"""What the standard library makes of damage; ValueError: names that are not the UTF-8 that they claim."""
_PART = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9._-]{0,126}", re.ASCII)
_CHUNK = 1 << 20
_BLOCK = 512


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """The folder that holds the archive's files, private to this process and gone after the block.

    The kind is told by the content, not by the name. Raises AdapterArchiveInvalid, and OSError.
    """
    # O_NONBLOCK: a pipe must not make us wait for ever.
    descriptor = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file, tempfile.TemporaryDirectory(prefix="tenon-archive-") as made:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            _refuse("it is not a regular file")
        target = _Target(Path(made), packed=os.fstat(file.fileno()).st_size)
        start = file.read(4)
        file.seek(0)
        try:
            if start == b"PK\x03\x04":
                _unzip(file, target)
            elif start[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                    _untar(stream, target)
            else:
                _untar(file, target)
        except _BROKEN as error:
            _refuse(f"it is damaged: {ascii(str(error))[:160]}")
        yield target.folder()


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Target:
    """Where members go, and what they may add up to."""

    def __init__(self, root: Path, *, packed: int) -> None:
        self._root = root
        self._most = min(MAX_UNPACKED, packed * MAX_RATIO + SLACK)
        self._written = 0
        self._members: dict[str, str] = {}
        """Lower-case path -> path: Windows and macOS take ``A`` and ``a`` for one file."""
        self._parents: set[str] = set()
        """Folders that members lie in or are; empty for the archive's top."""
        self._files = 0

    def folder(self) -> Path:
        """The one that holds the files: the top, or the only folder in it."""
        if not self._files:
            _refuse("it holds no files")
        return self._root.joinpath(*self._parents)

    def add(self, name: str, stream: _Stream | None) -> None:
        """A file, or a folder if ``stream`` is None."""
        path = name.rstrip("/") if stream is None else name
        while path.startswith("./"):
            path = path[2:]
        if stream is None and path in ("", "."):
            return
        shown, parts = ascii(name)[:160], path.split("/")
        if not all(_PART.fullmatch(part) for part in parts):
            _refuse(f"{shown} is no plain name")
        if len(parts) > 2 or (len(parts) == 2 and stream is None):
            _refuse(f"{shown} lies in a folder inside a folder")
        if self._members.get(path.lower()) is not None:
            _refuse(f"{shown} comes twice, or differs from another name only in case")
        self._members[path.lower()] = path
        if len(self._members) > MAX_MEMBERS:
            _refuse(f"it has more than {MAX_MEMBERS} members")
        self._parents.add(parts[0] if len(parts) == 2 or stream is None else "")
        if len(self._parents) > 1:
            _refuse("its files lie in more than one folder")
        if stream is not None:
            self._files += 1
            self._write(self._root.joinpath(*parts), stream)

    def count(self, size: int) -> None:
        self._written += size
        if self._written > self._most:
            _refuse(f"it unpacks to more than {self._most} bytes, {MAX_RATIO} times its own size")

    def _write(self, path: Path, stream: _Stream) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            while piece := stream.read(_CHUNK):
                self.count(len(piece))
                file.write(piece)


def _unzip(file: BinaryIO, target: _Target) -> None:
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name, mode = member.orig_filename, member.external_attr >> 16
            shown = ascii(name)[:160]
            if member.flag_bits & 0x1:
                _refuse(f"{shown} is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                _refuse(f"{shown} is packed by an unusual method")
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(f"{shown} is a link or a device")
            if name.endswith("/") or stat.S_ISDIR(mode):
                target.add(name, None)
                continue
            with archive.open(member) as stream:
                target.add(name, stream)


def _check_directory(file: BinaryIO) -> None:
    """The zip's table of contents is the file's end, and small: ``zipfile`` would read one of any size."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22 - 20))
    end = file.read()
    locator, record = end[:-22], end[-22:]
    if record[:4] != b"PK\x05\x06" or record[20:22] != b"\0\0":
        _refuse("it does not end where a zip ends")
    if locator[:4] == b"PK\x06\x07":
        _refuse("it is a zip of more than 4 GiB or 65,534 members")
    length, offset = int.from_bytes(record[12:16], "little"), int.from_bytes(record[16:20], "little")
    if length > MAX_DIRECTORY:
        _refuse("its table of contents is too long")
    if offset + length != size - 22:
        _refuse("there is something before or behind the zip")
    file.seek(0)


def _untar(stream: _Stream, target: _Target) -> None:
    """ustar, as GNU tar, bsdtar and Python write it for short names; extensions may tell times and owners."""
    while True:
        header = _take(stream, _BLOCK, target)
        if not header.strip(b"\0"):
            break
        name, size, kind = _header(header)
        if kind in (b"0", b"\0"):
            target.add(name, _Member(stream, size))
            _take(stream, -size % _BLOCK, target)
        elif kind == b"5":
            target.add(name, None)
        elif kind in (b"x", b"g"):
            if size > MAX_EXTENSION:
                _refuse("an extension header is too long")
            _check_extension(_take(stream, size, target))
            _take(stream, -size % _BLOCK, target)
        else:
            _refuse(f"{ascii(name)[:160]} is a link, a device or something else that is no file")
    while rest := stream.read(_CHUNK):  # tars are padded with zeros to 10 kB
        target.count(len(rest))
        if rest.strip(b"\0"):
            _refuse("it goes on after its end")


def _header(block: bytes) -> tuple[str, int, bytes]:
    """(name, size, kind)."""
    if block[257:262] != b"ustar":
        _refuse("it is no .zip, .tar or .tar.gz")
    expected = sum(block) - sum(block[148:156]) + 8 * 0x20
    if _octal(block[148:156]) != expected:
        _refuse("a header's checksum is wrong")
    name, prefix = (_text(field) for field in (block[0:100], block[345:500]))
    # GNU tar keeps times where POSIX keeps the start of a long name.
    if block[257:265] != b"ustar\x0000":
        prefix = ""
    return f"{prefix}/{name}" if prefix else name, _octal(block[124:136]), block[156:157]


def _text(field: bytes) -> str:
    text, _, rest = field.partition(b"\0")
    if rest.strip(b"\0"):
        _refuse("a name has something behind its end")
    return text.decode("latin-1")


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,12}", digits):
        _refuse("a header's number cannot be read")
    return int(digits, 8)


def _check_extension(data: bytes) -> None:
    """pax records: ``length key=value\\n``. Names and sizes come from the header alone."""
    while data:
        length = data.partition(b" ")[0]
        size = int(length) if re.fullmatch(rb"[1-9][0-9]{0,5}", length) else 0
        record, data = data[:size], data[size:]
        key, equals, _ = record[len(length) + 1 :].partition(b"=")
        if not size or len(record) != size or not record.endswith(b"\n") or not equals:
            _refuse("an extension header cannot be read")
        if key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.sparse"):
            _refuse("a name is too long or not ASCII, or a file is sparse")


def _take(stream: _Stream, size: int, target: _Target) -> bytes:
    data = b""
    while len(data) < size and (piece := stream.read(size - len(data))):
        data += piece
    if len(data) != size:
        _refuse("it ends too early")
    target.count(size)
    return data


class _Member:
    """``size`` bytes of a stream. Who writes them counts them."""

    def __init__(self, stream: _Stream, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int, /) -> bytes:
        piece = self._stream.read(min(size, self._left))
        self._left -= len(piece)
        return piece


def _refuse(why: str) -> NoReturn:
    raise AdapterArchiveInvalid(f"the archive cannot be taken: {why}")
