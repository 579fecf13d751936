"""From the text in a recipe to the place it names."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from trainer.datasets.sources.file import File
from trainer.datasets.sources.hub import HubFile
from trainer.datasets.sources.s3 import S3Object
from trainer.errors import SourceInvalid


class Source(Protocol):
    @property
    def name(self) -> str:
        """How faults call it: the last part of the path, without where it came from."""

    def opened(self) -> AbstractContextManager[Path]:
        """The bytes as a local file, fetched if need be. Raises SourceMissing, SourceRefused,
        SourceUnreachable."""


def locate(recipe_file: Path, text: str) -> Source:
    """``hf://datasets/owner/name/file``, ``s3://bucket/key``, or a path relative to ``recipe_file``.

    Nothing is fetched yet. Raises SourceInvalid.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return File(recipe_file.parent / text)
    if scheme == "hf":
        return HubFile.parse(rest)
    if scheme == "s3":
        return S3Object.parse(rest)
    raise SourceInvalid(f"{scheme[:20]}:// is no place to read from", source=text)
