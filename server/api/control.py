"""What every endpoint works with, built once by ``server.assembly.control`` or by a test."""

from dataclasses import dataclass, field

from registry.catalog.local import LocalCatalog
from registry.clock import Clock, SystemClock
from registry.ports import Blobs


@dataclass(frozen=True, slots=True)
class Control:
    catalog: LocalCatalog
    blobs: Blobs
    service_token: str
    """What Tenon's own processes show; also the root of the secrets that cursors and kept answers need."""
    clock: Clock = field(default_factory=SystemClock)
