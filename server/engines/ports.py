"""What an engine agent needs from outside. Fake: ``server.testing.control_plane``."""

from typing import Protocol

from registry.digests import Digest
from registry.feed import News, Position
from registry.manifests import Manifest
from registry.signing.envelope import Envelope


class ControlPlane(Protocol):
    """The registry, as an engine's agent sees it. Everything may raise ControlUnreachable."""

    async def read(self, known: Position | None, wait: float) -> News | None:
        """What is new since ``known``, as ``router.ports.FeedSource`` has it."""
        ...

    async def manifest(self, version: Digest) -> Manifest:
        """Raises VersionNotFound; the result's identity is ``version``."""
        ...

    async def blob(self, digest: Digest) -> bytes:
        """Raises BlobNotFound, BlobCorrupt."""
        ...

    async def announce(self, engine: str, envelope: Envelope) -> None:
        """A signed EngineState: this engine's current boot. Another boot than before ends every slot of the
        one before. Refused for a boot that a later one has replaced or that is not what it was
        (``engine_replaced``), and while an engine of that name is up with another key (``engine_held``)."""
        ...

    async def alive(self, engine: str, boot: str) -> bool:
        """That this boot's agent is there, said every few seconds. False when the control plane does not take
        the boot for the one that is up: announce it again."""
        ...

    async def attest(self, envelope: Envelope) -> int:
        """A signed Attestation; one that did not pass ends the slot. Returns a size of the log with it: a
        state of that size or later lists the slot, unless it has ended since. Refused for a boot that a later
        one has replaced (``engine_replaced``), and for one that counts as down (``engine_down``): announce it
        again."""
        ...

    async def withdraw(self, engine: str, envelope: Envelope) -> None:
        """A signed Withdrawal: end these slots of this boot; refused (``engine_needed``) while nobody else
        serves one of them."""
        ...
