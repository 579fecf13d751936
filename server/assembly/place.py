"""Where a command works: a workspace folder on this machine, or a control plane behind a URL."""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from registry.catalog.local.catalog import LocalCatalog
from server import settings
from server.errors import FolderNeeded, SettingsInvalid, UrlInvalid
from server.workspace import Workspace, find

if TYPE_CHECKING:
    from registry.catalog.remote.catalog import RemoteCatalog
    from registry.catalog.remote.wire import Wire

Catalog: TypeAlias = "LocalCatalog | RemoteCatalog"


_HOST: Final = re.compile(rb"[A-Za-z0-9._:-]+")
"""httpx takes almost anything for a host, and whatever it takes is asked with a key."""


@dataclass(frozen=True, slots=True)
class Place:
    where: str
    catalog: Catalog
    workspace: Workspace | None
    """None behind a URL."""

    @property
    def remote(self) -> "RemoteCatalog | None":
        from registry.catalog.remote.catalog import RemoteCatalog

        return self.catalog if isinstance(self.catalog, RemoteCatalog) else None

    def folder(self) -> Workspace:
        """Raises FolderNeeded."""
        if self.workspace is None:
            raise FolderNeeded(f"{self.where} is a URL")
        return self.workspace

    def close(self) -> None:
        if self.remote is not None:
            self.remote.close()


def open_place(where: str, *, key: str | None = None) -> Place:
    """``key``: instead of the one that ``tenon login`` has kept for the URL. A registry is not asked anything
    yet. Raises WorkspaceNotFound; UrlInvalid, NotLoggedIn."""
    if is_url(where):
        from registry.catalog.remote.catalog import RemoteCatalog

        url = normal(where)
        return Place(url, RemoteCatalog(wire(url, key or key_for(url))), None)
    from server.assembly.catalog import open_catalog

    workspace = find(Path(where))
    return Place(where, open_catalog(workspace), workspace)


def is_url(where: str) -> bool:
    return where.lower().startswith(("http://", "https://"))


def normal(url: str) -> str:
    """One spelling per URL: keys are kept by it. Raises UrlInvalid."""
    import httpx

    try:
        parsed = httpx.URL(url)
        plain = not (parsed.userinfo or parsed.query or parsed.fragment)
        if is_url(url) and _HOST.fullmatch(parsed.raw_host) and plain:
            return str(parsed).rstrip("/")
    except httpx.InvalidURL:
        pass
    raise UrlInvalid(f"not the URL of a registry: {ascii(url)[:160]}")


def key_for(url: str) -> str:
    """From ``tenon login``, or from TENON_KEY_FILE if it is for this URL. Raises NotLoggedIn."""
    from server.assembly.logins import Logins

    given = settings.load(settings.ClientSettings)
    # Only for the URL that was set beside it: a key must not go wherever a -w happens to point.
    if given.key_file is not None and is_url(given.workspace) and normal(given.workspace) == url:
        return read_key(given.key_file)
    return Logins(settings.config_folder(given)).key(url)


def read_key(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise SettingsInvalid(f"the key file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsInvalid(f"the key file {path} holds no key") from None


def wire(url: str, key: str) -> "Wire":
    from registry.catalog.remote.wire import Wire

    ca = settings.load(settings.ClientSettings).ca_file
    if ca is None:
        return Wire(url, key)
    try:
        return Wire(url, key, verify=ssl.create_default_context(cafile=str(ca)))
    except OSError as error:
        raise SettingsInvalid(f"TENON_CA_FILE: {ca} cannot be used: {error.strerror or error}") from None
