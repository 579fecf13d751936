"""What one request leaves behind of its question and its answer."""

import hmac
from typing import Literal

from registry.digests import Digest
from registry.models import Retention
from router.retention.tenant_keys import TenantKey

_DOMAIN = b"tenon/record-digest/v1\0"


def keyed_digest(mac: bytes, what: Literal["question", "answer"], data: bytes) -> Digest:
    """HMAC-SHA-256 in the clothes of a digest: of a short text nobody without the key can guess."""
    return str.__new__(
        Digest, "sha256:" + hmac.digest(mac, _DOMAIN + what.encode() + b"\0" + data, "sha256").hex()
    )


class Kept:
    """Of a policy that does not keep plain digests."""

    __slots__ = ("answer", "key", "mode", "question")

    def __init__(self, mode: Retention, question: bytes, key: TenantKey | None) -> None:
        """``key``: None for Retention.NONE, and only for it."""
        self.mode = mode
        self.key = key
        self.question = question if mode is Retention.FULL else b""
        self.answer = b""

    def of_question(self, body: bytes) -> Digest | None:
        return keyed_digest(self.key.mac, "question", body) if self.key is not None else None

    def of_answer(self, data: bytes) -> Digest | None:
        if self.mode is Retention.FULL:
            self.answer = data
        return keyed_digest(self.key.mac, "answer", data) if self.key is not None else None
