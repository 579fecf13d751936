"""What a load that should be refused did to the server: only a 4xx is a refusal."""

from server.mixup.finding import Finding, Tally
from server.mixup.ground import Ground


async def harm(ground: Ground, tally: Tally, status: int, what: str) -> Finding | None:
    """None where the server said yes or no and goes on."""
    if not status or not await ground.wire.alive():
        return tally.finding("present", f"{what} ended the server, or was never answered")
    if status >= 500 and not tally.mixups:
        return tally.finding("not_tested", f"{what} failed with {status}, which refuses nothing")
    return None
