"""The log key of a workspace and its successor. Both are on disk before the log says that one follows."""

import os

from registry.catalog.local.catalog import LocalCatalog
from registry.models import PublicKey
from registry.signing.keys import Signer
from server.workspace import Workspace

_NEXT = "log.next"


def rotate(workspace: Workspace, catalog: LocalCatalog, *, actor: str) -> PublicKey:
    """A new log key in force, and the old one gone: whoever copied it signs nothing that counts any more.

    Killed anywhere, :func:`settle` finishes what the log says happened.
    """
    file = workspace.key(_NEXT)
    if not file.exists():
        Signer.generate("log").save(file)
    key = catalog.rotate_log_key(Signer.load(file), actor=actor)
    _replace(workspace)
    return key


def settle(workspace: Workspace, catalog: LocalCatalog) -> bool:
    """After a rotation that was killed: True when the log had changed its key and the file had not."""
    file = workspace.key(_NEXT)
    if not file.exists() or Signer.load(file).public != catalog.log_key():
        return False
    _replace(workspace)
    return True


def _replace(workspace: Workspace) -> None:
    file = workspace.key(_NEXT)
    file.replace(workspace.key("log"))
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
