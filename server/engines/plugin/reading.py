"""Weights are parsed from the very bytes that were verified.

Verifying a folder and then letting vLLM open it leaves a moment to swap it. Worse: vLLM maps the file, and
while the dtype stays the same its cache *is* that mapping (`tensor.to` copies nothing), so a write to the
file long after a load would still reach the slots. So every file is read once, hashed, and handed over as a
sealed memfd: memory that nobody can write any more, the same user included.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.manifests import Manifest

NULL: Final = "tenon-null"
"""The adapter without effect. It has no manifest; what it is shows in its weights."""
_PREFIX: Final = "tenon-"
_MANIFEST_LIMIT: Final = 1 << 20
_NULL_LIMIT: Final = 1 << 30
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_PARSED_NULL: Final = ("adapter_config.json", "adapter_model.safetensors")


class BytesWrong(Exception):
    """What lies there is not the version; the text says which file."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One read of one version's weights; compared by identity: another read is another object."""

    name: str
    digest: Digest | None
    """None for the null adapter."""


def digest_named(name: str) -> Digest | None:
    """The version that a name stands for; None for the null adapter. Raises ValueError for other names."""
    if name == NULL:
        return None
    hex_part = name.removeprefix(_PREFIX)
    if not name.startswith(_PREFIX) or len(hex_part) != 64 or set(hex_part) - set("0123456789abcdef"):
        raise ValueError("a name inside the engine is tenon- and the digest of the version")
    return Digest(f"sha256:{hex_part}")


@contextlib.contextmanager
def sealed(name: str, path: str, *, cache: Path, scratch: Path) -> Iterator[tuple[Reading, Path]]:
    """A private folder with what ``name`` stands for, while the context lasts (a mapping lasts longer).

    Raises BytesWrong, FileNotFoundError when nothing is there, and ValueError for a name or path of others.
    """
    digest = digest_named(name)
    folder = Path(path)
    if folder.parent != cache or (digest is not None and folder.name != digest.hex):
        raise ValueError("an adapter is read from the node's cache, from the folder with its digest")
    with contextlib.ExitStack() as stack:
        listing = _folder(folder)
        stack.callback(os.close, listing)
        files = _null_files(listing) if digest is None else _manifest(cache, digest)
        if digest is not None and _names(listing) != set(files):
            raise BytesWrong("the folder holds other files than the manifest")
        scratch.mkdir(mode=0o750, parents=True, exist_ok=True)  # it may have gone with the cache around it
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".reading-", dir=scratch)))
        for file, expected in files.items():
            data = _read(listing, file, limit=_NULL_LIMIT if expected is None else expected[1])
            if expected is not None and (
                len(data) != expected[1] or hashlib.sha256(data).hexdigest() != expected[0].hex
            ):
                raise BytesWrong(f"{file} is not {expected[0].short}")
            memory = _memory(file, data)
            stack.callback(os.close, memory)
            (private / file).symlink_to(f"/proc/self/fd/{memory}")
        yield Reading(name, digest), private


def _manifest(cache: Path, digest: Digest) -> dict[str, tuple[Digest, int] | None]:
    root = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        data = _read(root, f"{digest.hex}.manifest.json", limit=_MANIFEST_LIMIT)
    finally:
        os.close(root)
    if Digest.of(data) != digest:
        raise BytesWrong("the manifest is not the one that the name is the digest of")
    try:
        manifest = Manifest.parse(data)
    except InvalidDocument as error:
        raise BytesWrong(f"the manifest cannot be read: {error.message}") from None
    return {ref.path: (ref.digest, ref.size) for ref in manifest.files}


def _null_files(listing: int) -> dict[str, tuple[Digest, int] | None]:
    if not set(_PARSED_NULL) <= _names(listing):
        raise FileNotFoundError("the null adapter is not whole")
    return dict.fromkeys(_PARSED_NULL)


def _names(folder: int) -> set[str]:
    return set(os.listdir(folder))  # of the open folder: its path may mean another one by now


def _folder(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BytesWrong(f"the folder is a link or a file: {error.strerror}") from None


def _read(folder: int, name: str, *, limit: int) -> bytes:
    """At most one byte more than ``limit``: enough to see that it is too long."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BytesWrong(f"{name} is no plain file: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BytesWrong(f"{name} is no plain file")
        return stream.read(limit + 1)


def _memory(name: str, data: bytes) -> int:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
