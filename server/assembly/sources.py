"""What somebody calls "my adapter": a PEFT folder, an archive of one, or a repository of the hub."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.errors import AdapterFileMissing
from registry.intake import CONFIG, WEIGHTS
from server.errors import DependencyMissing, SourceNotFound

_HUB: Final = re.compile(
    r"(?P<repository>[\w.-]{1,96}/[\w.-]{1,96})(@(?P<revision>[\w./-]{1,128}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Source:
    folder: Path
    method: str
    """For the provenance."""


@contextmanager
def opened(source: str, *, note: Callable[[str], None]) -> Iterator[Source]:
    """The folder behind ``source``; what was unpacked for it is gone afterwards.

    Raises SourceNotFound, AdapterFileMissing, and what an unsafe archive raises.
    """
    path = Path(source)
    if path.is_dir():
        yield Source(path, "upload")
        return
    if path.is_file():
        from registry.archives import unpacked

        with unpacked(path) as folder:
            yield Source(folder, "upload")
        return
    named = _HUB.fullmatch(source)
    if named is None or source.startswith((".", "/")):
        raise SourceNotFound(f"there is no {source}, and it is no hub name either")
    snapshot = _from_hub(named["repository"], named["revision"], note)
    with tempfile.TemporaryDirectory(prefix="tenon-hub-") as private:
        # The hub's cache holds links, which intake refuses wherever they lead.
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(snapshot.folder / name, Path(private) / name)
        yield Source(Path(private), snapshot.method)


def _from_hub(repository: str, revision: str | None, note: Callable[[str], None]) -> Source:
    """A snapshot of two files, pinned to the commit that it turns out to be."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise DependencyMissing("fetching from the hub needs the package huggingface_hub") from None
    try:
        # Nothing else is fetched: a repository may hold gigabytes, and pickles, beside its adapter.
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise SourceNotFound(
            f"could not fetch {repository}: {type(error).__name__}",
            hint="check the name, the network and HF_TOKEN; or download it and give the folder",
        ) from None
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise AdapterFileMissing(f"{repository} holds no {name}", file=name)
    commit = folder.name  # the cache names a snapshot by its commit
    note(f"{repository} at commit {commit[:12]}")
    return Source(folder, f"hub:{repository}@{commit}")
