"""One kind of verifier: its name, its settings and how it is made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.canonical import Document
from trainer.recipes.sources import Endpoint
from trainer.rewards.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Resources:
    """What verifiers may need beside their settings."""

    schema: Mapping[str, Any] | None = None
    """The recipe's ``evaluation.schema``."""
    base_folder: Path | None = None
    adapter_folder: Path | None = None
    """Of the reward model that the line names."""
    endpoint: Endpoint | None = None
    endpoint_key: str | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """One entry of the table that ``tenon data verifiers`` prints."""

    name: str
    summary: str
    settings: type[Document]
    make: Callable[[Any, Resources], Verifier]
    """Raises ValueError, with a sentence, when a resource that it needs is missing."""
    binary: bool | Callable[[Any], bool] = True
    """Whether 1 means passed and everything else failed; some decide it by their settings."""

    def is_binary(self, settings: Document) -> bool:
        return self.binary if isinstance(self.binary, bool) else self.binary(settings)


class NoSettings(Document):
    """For verifiers that need none."""
