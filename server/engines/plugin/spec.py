"""What the agent tells the guard: one small file, named by ``TENON_GUARD``."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator

from registry.canonical import Document
from registry.errors import InvalidDocument


class GuardSpec(Document):
    """Strictly parsed: a guard that guesses what it should watch is none."""

    kind: Literal["tenon.guard/v1"] = "tenon.guard/v1"
    reports: str
    """Folder for counters and violations; of one boot only, so that nothing old is taken for new."""
    cache: str
    """Folder of the node's adapters: ``<hex>/`` and ``<hex>.manifest.json``."""
    isolate_base: bool
    """Whether the bare base may never share a step with an adapter (D1: every CPU backend up to 0.32)."""
    audit_every: int = Field(64, ge=0)
    """Steps between two looks at the slots' tensors; 0 switches them off."""

    @field_validator("reports", "cache")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not Path(value).is_absolute():
            raise ValueError("a folder is given by its absolute path")
        return value

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises InvalidDocument also when there is no such file."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidDocument(f"the guard's spec cannot be read: {error.strerror}") from None
        return cls.parse(data)
