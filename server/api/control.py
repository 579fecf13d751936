"""What every endpoint works with, built once by ``server.assembly.control`` or by a test."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from registry.blobs.uploads import Uploads
from registry.catalog.answers import Answers
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import Clock, SystemClock
from registry.ports import BlobStore
from server.api.expected import Discovery, Expected
from server.api.liveness import SILENCE, Liveness
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
    silence: float = SILENCE
    """Seconds without a word of its agent after which an engine counts as down; 0: never."""
    ticks: Callable[[], float] = time.monotonic
    """Monotonic seconds, for that."""

    discoveries: tuple[Discovery, ...] = ()
    """What says which engines there should be; none: whoever announces itself."""
    refuse_unlisted: bool = True

    liveness: Liveness = field(init=False)
    expected: Expected = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "liveness", Liveness(self.catalog, silence=self.silence, ticks=self.ticks))
        expected = Expected(self.catalog, self.discoveries, refuse=self.refuse_unlisted, ticks=self.ticks)
        object.__setattr__(self, "expected", expected)

    @property
    def answers(self) -> Answers:
        return self.catalog.answers

    def within(self, tenant: str) -> LocalCatalog:
        """The catalog for what a request does to one tenant: on PostgreSQL it sees no other's rows."""
        return self.catalog.within(tenant)
