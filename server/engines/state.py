"""What an agent says about itself: events as they happen, and its state at a glance."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from registry.digests import Digest
from registry.judgement import Finding
from server.engines.guarded import Totals

_log = logging.getLogger("tenon.engine")

Kind: TypeAlias = Literal[
    "starting", "up", "loading", "attested", "refused", "failed", "withdrawn", "waiting", "merging",
    "recycling", "drained", "violated", "taken", "down", "stopped",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    kind: Kind
    text: str
    """One sentence for people, without a full stop."""
    version: Digest | None = None


Report: TypeAlias = Callable[[Event], None]
"""Called from the agent's loop: must return at once and must not raise."""


def logged(event: Event) -> None:
    """The default report: one structured line in the log."""
    level = (
        logging.WARNING
        if event.kind in ("refused", "failed", "waiting", "violated", "taken", "down")
        else logging.INFO
    )
    _log.log(level, "%s: %s", event.kind, event.text, extra={"kind": event.kind, "version": event.version})


@dataclass(frozen=True, slots=True)
class Why:
    """Why a wanted version is not in service here."""

    text: str
    blocks: bool
    """Whether the engine as a whole is not ready because of it. A version that does not fit (no free slot,
    no fingerprint, files that vLLM refuses) does not; one that should be attested and is not does, unless
    others are in service and it may be wrong itself."""


@dataclass(frozen=True, slots=True)
class AgentState:
    engine: str
    doing: str
    """What it does right now, for people: ``starting vLLM``, ``serving`` …"""
    boot: str | None = None
    engine_version: str | None = None
    up: bool = False
    settled: bool = False
    """The newest snapshot has been acted on."""
    merged: Digest | None = None
    """The version that is part of the engine's weights."""
    waits_for: str = ""
    """Why a fresh boot that is needed does not start yet; it serves on as it is meanwhile."""
    guard: Totals | None = None
    """What the guard inside vLLM has counted in this boot; None without one."""
    attest_age: float = 0.0
    """Seconds since the last look at the version in service that waited longest for one; 0 without any."""
    ready: Mapping[Digest, Finding] = field(default_factory=dict)
    """In service: loaded, attested, and the attestation is in the registry's log."""
    not_ready: Mapping[Digest, Why] = field(default_factory=dict)
    retired: tuple[Digest, ...] = ()
    """Loaded, and no alias points there any more."""

    @property
    def is_ready(self) -> bool:
        return self.up and self.settled and not any(why.blocks for why in self.not_ready.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "status": "ready" if self.is_ready else "not_ready",
            "engine": self.engine,
            "doing": self.doing,
            "boot": self.boot,
            "engine_version": self.engine_version,
            "up": self.up,
            "merged": self.merged,
            "waits_for": self.waits_for,
            "guard": None if self.guard is None else asdict(self.guard),
            "ready": {
                version: {"strength": finding.strength, "distance": finding.own_distance}
                for version, finding in self.ready.items()
            },
            "not_ready": {version: why.text for version, why in self.not_ready.items()},
            "retired": list(self.retired),
        }
