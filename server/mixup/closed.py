"""Ways in that a tenant of Tenon has not: to the bare base (D1), and to what loads adapters (D6)."""

from collections.abc import Iterable
from typing import Final

from registry.digests import Digest
from server.mixup.finding import Finding
from server.mixup.ground import Ground

_BASES: Final = ("tenon-base", "base", "demo", "tenon-null")


async def base(ground: Ground, count: int, versions: Iterable[Digest]) -> Finding:
    """D1: whatever the base is called inside, nobody gets to it, and so it is in nobody's batch."""
    tally = ground.tally("D1")
    names = [*_BASES, *(str(each).replace("sha256:", "tenon-") for each in versions)]
    answered = 0
    for at in range(max(count, len(names))):
        tenant = list(ground.voices)[at % len(ground.voices)]
        key = ground.voices[tenant].key
        reply = await ground.ask(names[at % len(names)], ground.prompts[0], max_tokens=1, key=key)
        tally.note(reply.status)
        answered += reply.status == 200
    if answered:
        return tally.finding("present", f"{answered} requests for what only engines know were answered")
    if tally.refused < tally.requests:
        return tally.finding("not_tested", f"only {tally.refused} of {tally.requests} requests were refused")
    return tally.finding("handled", "nobody can ask for the bare base, nor by an engine's name")


async def loading(ground: Ground) -> Finding:
    """D6: with every tenant's key."""
    tally = ground.tally("D6")
    opened = 0
    for name, voice in ground.voices.items():
        for path in (ground.loader.load_path, ground.loader.unload_path):
            body = {"lora_name": name, "lora_path": str(ground.folder), "load_inplace": True}
            status, _ = await ground.wire.call("POST", path, body, key=voice.key)
            tally.note(status)
            opened += bool(status) and status not in (401, 403, 404, 405)
    if opened:
        return tally.finding("present", "tenants reach what loads adapters")
    if tally.failed:
        return tally.finding("not_tested", f"{tally.failed} requests got no answer at all")
    return tally.finding("handled", "no tenant reaches what loads adapters, and the agent never replaces one")
