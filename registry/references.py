"""What a trusted trainer says of a version that was pushed without a fingerprint: this is how it behaves."""

from typing import Literal

from registry.canonical import Document
from registry.digests import Digest
from registry.names import Name


class Reference(Document):
    """Signed. The fingerprint itself is a blob: log entries stay small (a fingerprint has up to 150 kB)."""

    kind: Literal["tenon.reference/v1"] = "tenon.reference/v1"
    tenant: Name
    adapter: Name
    version: Digest
    base: Digest
    fingerprint: Digest
    """Of the canonical bytes."""
