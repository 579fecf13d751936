"""A file on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import DataInvalid, Fault


@dataclass(frozen=True, slots=True)
class File:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Raises DataInvalid, as for every other fault of a file that a person wrote."""
        try:
            with self.path.open("rb"):
                pass
        except OSError as error:
            reason = error.strerror or "cannot be read"
            raise DataInvalid(self.name, (Fault(self.name, reason),)) from None
        yield self.path
