"""Public keys that somebody was given on another way than the registry: what proofs are checked against."""

from collections.abc import Mapping
from pathlib import Path

from registry.canonical import decode
from registry.errors import InvalidDocument
from registry.models import PublicKey
from server.errors import FileUnusable


def read_keys(path: Path) -> Mapping[str, PublicKey]:
    """By id, from the JSON list that ``tenon log keys`` prints. Raises FileUnusable, InvalidDocument."""
    try:
        keys = decode(path.read_bytes())
    except OSError as error:
        raise FileUnusable(f"cannot read {path}: {error.strerror}") from None
    if not isinstance(keys, list):
        raise InvalidDocument(f"{path}: expected a JSON list of public keys")
    parsed = [PublicKey.build(key) for key in keys]
    return {key.id: key for key in parsed}
