"""The local catalog of a workspace, wired."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from registry.catalog.auditor import Auditor
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import SystemClock
from registry.errors import AlreadyExists
from registry.signing.keys import Signer
from registry.store.database import upgrade
from registry.store.port import Store
from server.assembly.blobs import open_storage
from server.assembly.log_key import settle
from server.assembly.secrets import read_url
from server.assembly.storage import on_postgresql, open_store
from server.settings import RegistrySettings, load
from server.workspace import SIGNERS, Workspace, create, find, keep_database_url


def initialise(root: Path, *, database_url_file: Path | None = None) -> Workspace:
    """A new workspace with an empty registry that trusts the workspace's own signers.

    ``database_url_file``: where its PostgreSQL is; the URL is copied into the workspace. Raises AlreadyExists
    for a folder or a database that is in use: another log key could never write there.
    """
    settings = RegistrySettings(database_url_file=database_url_file) if database_url_file else _settings()
    if settings.database_url_file is not None:
        with closing(on_postgresql(settings.database_url_file)) as store:
            _require_unused(store)
    workspace = create(root)
    if database_url_file is not None:
        keep_database_url(workspace, read_url(database_url_file))
    with closing(open_store(workspace, settings)) as store:
        upgrade(store)
    catalog = open_catalog(workspace, settings)
    for role in SIGNERS:
        catalog.trust(signer(workspace, role).public, actor="tenon init")
    return workspace


def upgrade_workspace(root: Path) -> Workspace:
    workspace = find(root)
    with closing(open_store(workspace, _settings())) as store:
        upgrade(store)
    return workspace


def upgrade_database(url_file: Path) -> None:
    """Without a workspace: for a migration that runs beside the control plane, as the tables' owner."""
    with closing(on_postgresql(url_file)) as store:
        upgrade(store)


def open_catalog(workspace: Workspace, settings: RegistrySettings | None = None) -> LocalCatalog:
    settings = settings or _settings()
    catalog = _opened(workspace, settings)
    return _opened(workspace, settings) if settle(workspace, catalog) else catalog


@contextmanager
def open_auditor(workspace: Workspace) -> Iterator[Auditor]:
    """For whoever may read the workspace and need not be able to write its log."""
    settings = _settings()
    with closing(open_store(workspace, settings)) as store:
        store.check()
        yield Auditor(store, open_storage(workspace, settings).blobs)


def _opened(workspace: Workspace, settings: RegistrySettings) -> LocalCatalog:
    return LocalCatalog(
        database=open_store(workspace, settings),
        blobs=open_storage(workspace, settings).blobs,
        signer=signer(workspace, "log"),
        clock=SystemClock(),
        max_rank=settings.max_adapter_rank,
    )


def signer(workspace: Workspace, role: str) -> Signer:
    return Signer.load(workspace.key(role))


def _settings() -> RegistrySettings:
    return load(RegistrySettings)


def _require_unused(store: Store) -> None:
    upgrade(store)
    store.check()
    with store.read() as rows:
        if rows.log.size():
            raise AlreadyExists(
                "this database holds a registry already",
                hint="use the workspace that was made with it, or an empty database",
            )
