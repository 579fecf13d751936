"""Another engine of the fleet, as far as an agent sees it: announced, and with slots that it is given."""

from registry.digests import Digest
from registry.fingerprint import Attestation
from registry.models import EngineState
from registry.signing.keys import Signer
from registry.signing.types import ANNOUNCEMENT, ATTESTATION
from server.testing.control_plane import InMemoryControlPlane

NAME = "engine-9"
_BOOT = "another-boot"


async def announce(
    control: InMemoryControlPlane, signer: Signer, *, base: Digest, rank: int, up: bool = True
) -> None:
    """``rank``: the largest that it takes."""
    state = EngineState(
        engine=NAME,
        boot=_BOOT,
        url="http://127.0.0.1:9",
        base=base,
        engine_version="0.0.0",
        dtype="float32",
        max_loras=8,
        up=up,
        names=32,
        max_rank=rank,
    )
    await control.announce(NAME, signer.sign(ANNOUNCEMENT, state.canonical()))


async def attest(control: InMemoryControlPlane, signer: Signer, like: Attestation) -> None:
    """It has found the same as somebody else has."""
    found = like.model_copy(update={"engine": NAME, "boot": _BOOT})
    await control.attest(signer.sign(ATTESTATION, found.canonical()))
