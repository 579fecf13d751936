"""A workspace: one folder that holds everything a single machine needs. No server to install."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.errors import AlreadyExists, WorkspaceNotFound
from registry.signing.keys import Signer, SignerRole

_MARKER = "tenon-workspace"
SIGNERS: Final[tuple[SignerRole, ...]] = ("log", "trainer", "release", "engine", "router")
"""Log heads, reports, releases, attestations, receipts: one key each: a leaked one forges one thing only.

Workspaces from before there were releases have no such key, and need none until an alias asks for it."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths only; what is in them belongs to the registry, the router and the engines."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "registry.db"

    @property
    def database_url(self) -> Path:
        """Exists when the registry is on PostgreSQL instead of ``database``."""
        return self.root / "secrets" / "database-url"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def bases(self) -> Path:
        """One link per registered base name to its folder."""
        return self.root / "bases"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def inputs(self) -> Path:
        """Adapters of versions that a training reads, by digest."""
        return self.root / "inputs"

    @property
    def records(self) -> Path:
        return self.root / "records"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def service_token(self) -> Path:
        return self.root / "secrets" / "service-token"

    @property
    def salt(self) -> Path:
        return self.root / "secrets" / "salt"

    @property
    def retention_key(self) -> Path:
        return self.root / "secrets" / "retention-key"

    @property
    def stack(self) -> Path:
        """Written while `tenon up` runs: what listens where, with process ids."""
        return self.root / "up.json"

    def key(self, role: str) -> Path:
        return self.root / "secrets" / f"{role}.key"


def create(root: Path) -> Workspace:
    """Make an empty workspace with fresh secrets. Raises AlreadyExists if ``root`` holds anything."""
    workspace = Workspace(root.resolve())
    if workspace.root.exists() and any(workspace.root.iterdir()):
        raise AlreadyExists(f"{root} is not empty", hint="choose another folder, or use this one as it is")
    for folder in (workspace.blobs, workspace.bases, workspace.runs, workspace.records, workspace.logs):
        folder.mkdir(parents=True)
    workspace.root.chmod(0o700)  # tenants' data and adapters: nobody else's business
    workspace.service_token.parent.mkdir(mode=0o700)
    for role in SIGNERS:
        Signer.generate(role).save(workspace.key(role))
    _secret(workspace.service_token)
    _secret(workspace.salt)
    _secret(workspace.retention_key)
    (workspace.root / _MARKER).write_text("1\n")  # last: a folder without it is not a workspace
    return workspace


def keep_database_url(workspace: Workspace, url: str) -> None:
    """From now on the registry of this workspace is there."""
    _write_secret(workspace.database_url, url)


def find(root: Path) -> Workspace:
    """The workspace at ``root``; raises WorkspaceNotFound."""
    if not (root / _MARKER).is_file():
        raise WorkspaceNotFound(f"no workspace at {root}", hint=f"make one with: tenon init {root}")
    return Workspace(root.resolve())


def _secret(path: Path) -> None:
    _write_secret(path, secrets.token_urlsafe(32))


def _write_secret(path: Path, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secret + "\n")
