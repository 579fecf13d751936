"""Public keys that somebody was given on another way than the registry: what proofs are checked against."""

from collections.abc import Mapping
from pathlib import Path

from registry.canonical import decode
from registry.errors import InvalidDocument, SigningKeyNotFound
from registry.models import PublicKey
from registry.signing.keys import Signer
from server.errors import FileUnusable
from server.workspace import Workspace


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


def log_keys(workspace: Workspace, trust: Path | None) -> Mapping[str, PublicKey]:
    """What heads must be signed with: ``trust``, or the workspace's own word for it.

    Raises FileUnusable, InvalidDocument, SigningKeyNotFound.
    """
    if trust is None:
        try:
            key = Signer.load(workspace.key("log")).public
        except SigningKeyNotFound as error:
            raise SigningKeyNotFound(error.message, hint="give the log keys with --trust KEYS.json") from None
        return {key.id: key}
    return read_log_keys(trust)


def read_log_keys(path: Path) -> Mapping[str, PublicKey]:
    """Those of :func:`read_keys` that sign heads; at least one."""
    keys = {key.id: key for key in read_keys(path).values() if key.role == "log"}
    if not keys:
        raise InvalidDocument(f"{path}: no log key is among these keys")
    return keys
