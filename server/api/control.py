"""What every endpoint works with, built once by ``server.assembly.control`` or by a test."""

from dataclasses import dataclass, field

from registry.blobs.uploads import Uploads
from registry.catalog.answers import Answers
from registry.catalog.local import LocalCatalog
from registry.clock import Clock, SystemClock
from registry.ports import BlobStore
from server.api.oidc import Oidc


@dataclass(frozen=True, slots=True)
class Control:
    catalog: LocalCatalog
    blobs: BlobStore
    uploads: Uploads
    """Into the same ``blobs``."""
    service_token: str
    """What Tenon's own processes show; also the root of the secrets that cursors and kept answers need."""
    clock: Clock = field(default_factory=SystemClock)
    oidc: Oidc | None = None
    """None: keys only."""

    @property
    def answers(self) -> Answers:
        return self.catalog.answers

    def within(self, tenant: str) -> LocalCatalog:
        """The catalog for what a request does to one tenant: on PostgreSQL it sees no other's rows."""
        return self.catalog.within(tenant)
