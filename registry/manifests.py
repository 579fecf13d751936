"""The manifest: its digest *is* the version's identity."""

from typing import Literal

from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.names import Name


class BlobRef(Document):
    path: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """A plain file name: no folders, so a manifest cannot write outside its directory."""
    digest: Digest
    size: int = Field(ge=0)


class LoraShape(Document):
    """What an engine must know to size its slots."""

    rank: int = Field(ge=1)
    """The largest rank of any module (``rank_pattern`` included)."""
    alpha: float
    rslora: bool = False
    targets: tuple[str, ...]
    """Sorted short module names, for people (``q_proj`` …)."""


class DataRef(Document):
    role: Literal["train", "evaluation"]
    digest: Digest
    rows: int = Field(ge=0)


class Provenance(Document):
    """Where a version comes from. ``method='upload'`` when somebody pushed a folder."""

    method: str
    recipe: Digest | None = None
    plan: Digest | None = None
    data: tuple[DataRef, ...] = ()
    parent: Digest | None = None
    """The version that training continued."""
    teacher: Digest | None = None
    """The version or base that was imitated; locked here, whatever its alias says later."""
    inputs: dict[str, Digest] = Field(default_factory=dict)
    """Every other model that training used, by its role in the recipe (``rewards[0]``)."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Library -> version, of whatever can change the result."""


class Manifest(Document):
    """One adapter version. No times and no machine names: the same training gives the same digest."""

    kind: Literal["tenon.adapter/v1"] = "tenon.adapter/v1"
    tenant: Name
    adapter: Name
    base: Digest
    lora: LoraShape
    files: tuple[BlobRef, ...]
    """What PEFT and vLLM read, sorted by path."""
    contract: BlobRef
    fingerprint: BlobRef | None = None
    """None for an upload that nobody has fingerprinted: it can be stored, never served."""
    provenance: Provenance

    @property
    def blobs(self) -> tuple[BlobRef, ...]:
        """All that the version is made of; digests in its provenance are not blobs."""
        return (*self.files, self.contract, *([self.fingerprint] if self.fingerprint else []))
