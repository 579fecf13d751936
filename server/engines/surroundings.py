"""What every life of an agent's engine shares."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.clock import Clock
from registry.signing.keys import Signer
from server.engines.absent import Absent
from server.engines.cache import AdapterCache
from server.engines.cadence import Cadence
from server.engines.chances import Chances
from server.engines.following import Following
from server.engines.merges import Merges
from server.engines.ports import ControlPlane
from server.engines.state import Report
from server.engines.suspects import Suspects


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    control: ControlPlane
    signer: Signer
    cache: AdapterCache
    merges: Merges
    clock: Clock
    inherited: Mapping[str, str]
    log: Path
    cadence: Cadence
    report: Report
    new_id: Callable[[], str]
    following: Following
    stopping: asyncio.Event
    null: Callable[[], Mapping[str, bytes]]
    """The files of the null adapter."""
    guard: Path | None
    """Folder below which the guard of each boot reports; None: vLLM runs without one."""
    absent: Absent
    chances: Chances
    suspects: Suspects
