"""A registry behind a URL: what people and trainers may ask of it and do to it.

The same calls as :class:`registry.catalog.local.catalog.LocalCatalog`, the same errors. What only Tenon's own
processes and the registry's own machine may do is not here: the feed, engines, attestations, record heads,
counting usage, authenticating, verifying the tables.
"""

from types import TracebackType
from typing import Self

from registry.catalog.remote.aliases import Aliases
from registry.catalog.remote.bases import Bases
from registry.catalog.remote.keys import Keys
from registry.catalog.remote.log import Log
from registry.catalog.remote.policies import Policies
from registry.catalog.remote.pull import Pulls
from registry.catalog.remote.push import Pushes
from registry.catalog.remote.routing import Routes
from registry.catalog.remote.signers import Signers
from registry.catalog.remote.tenants import Tenants
from registry.catalog.remote.usage import Usage


class RemoteCatalog(Tenants, Keys, Signers, Bases, Policies, Routes, Pushes, Pulls, Aliases, Usage, Log):
    """``RemoteCatalog(Wire(url, key))``. Safe to share between threads; close it in the end."""

    @property
    def url(self) -> str:
        return self._wire.url

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
