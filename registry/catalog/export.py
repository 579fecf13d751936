"""Pull: a version's files on disk, checked, all of them or none."""

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from registry.digests import Digest
from registry.errors import AlreadyExists, BlobCorrupt
from registry.manifests import BlobRef, Manifest
from registry.ports import Blobs


def export(manifest: Manifest, folder: Path, *, blobs: Blobs) -> None:
    """The adapter's own files, as PEFT and vLLM read them (readable by every user of the machine: an engine
    runs as another one, and PEFT's 0600 has stopped it).

    An existing folder with exactly these bytes is left as it is. Raises AlreadyExists for any other,
    BlobNotFound or BlobCorrupt for a damaged store; then nothing has appeared at ``folder``.
    """
    if holds(folder, manifest):
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists("the folder is not empty and holds something else", hint="choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.{secrets.token_hex(8)}"
    partial.mkdir(mode=0o755)
    try:
        for file in manifest.files:
            _write(partial / file.path, file, blobs)
        sync(partial)
        # rename(2) replaces an empty folder and fails on a full one: also when somebody was faster.
        try:
            partial.rename(folder)
        except OSError:
            if not holds(folder, manifest):
                raise AlreadyExists("the folder was filled with something else meanwhile") from None
            shutil.rmtree(partial)
        sync(folder.parent)
    except BaseException:
        with suppress(FileNotFoundError):
            shutil.rmtree(partial)
        raise


def _write(path: Path, file: BlobRef, blobs: Blobs) -> None:
    with blobs.open(file.digest) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target)  # to the last byte and beyond: there the source checks its digest
        size = target.tell()
        target.flush()
        os.fsync(target.fileno())
    if size != file.size:
        raise BlobCorrupt(f"{file.path} has {size} bytes, the manifest says {file.size}", digest=file.digest)
    path.chmod(0o644)


def holds(folder: Path, manifest: Manifest) -> bool:
    wanted = {file.path: file.digest for file in manifest.files}
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != set(wanted):
        return False
    return all(
        (folder / name).is_file() and Digest.of_file(folder / name) == digest
        for name, digest in wanted.items()
    )


def sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
