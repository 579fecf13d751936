"""The local catalog of a workspace, wired."""

from pathlib import Path

from registry.blobs.filesystem import FilesystemBlobs
from registry.catalog.local import LocalCatalog
from registry.clock import SystemClock
from registry.signing.keys import Signer
from registry.store.database import Database, upgrade
from server.workspace import SIGNERS, Workspace, create, find


def initialise(root: Path) -> Workspace:
    """A new workspace with an empty registry that trusts the workspace's own signers."""
    workspace = create(root)
    upgrade(Database(workspace.database))
    catalog = open_catalog(workspace)
    for role in SIGNERS:
        catalog.trust(signer(workspace, role).public, actor="tenon init")
    return workspace


def upgrade_workspace(root: Path) -> Workspace:
    workspace = find(root)
    upgrade(Database(workspace.database))
    return workspace


def open_catalog(workspace: Workspace) -> LocalCatalog:
    return LocalCatalog(
        database=Database(workspace.database),
        blobs=FilesystemBlobs(workspace.blobs),
        signer=signer(workspace, "log"),
        clock=SystemClock(),
    )


def signer(workspace: Workspace, role: str) -> Signer:
    return Signer.load(workspace.key(role))
