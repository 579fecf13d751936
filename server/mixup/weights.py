"""Adapters that must not be served at all: broken values (D12), another structure (D16)."""

from collections.abc import Mapping
from pathlib import Path

from server.mixup import lora
from server.mixup.finding import Finding, Tally
from server.mixup.ground import Ground
from server.mixup.harm import harm

_UNWRITABLE = "adapters cannot be made and loaded here"
_HUGE = 1e20


async def broken_values(ground: Ground) -> Finding:
    """D12: can leave the server's memory broken for everybody."""
    tally = ground.tally("D12")
    if not ground.writes:
        return tally.finding("not_tested", _UNWRITABLE)
    root, shapes = ground.folder / "broken", ground.shaped()
    folders = {
        "NaN": lora.write_not_finite(root / "nan", shapes, seed=1),
        "huge": lora.write(root / "huge", shapes, seed=2, size=_HUGE),
    }
    accepted, stopped = await _offered(ground, tally, folders, used=True)
    if stopped or not accepted:
        return stopped or tally.by_answers(handled="both are refused, and nobody else noticed")
    what = f"{' and '.join(accepted)} weights are loaded with 200"
    if tally.mixups or tally.failed:
        what += f"; {tally.mixups} answers of others were altered, {tally.failed} requests failed"
    return tally.finding("present", what)


async def other_structure(ground: Ground) -> Finding:
    """D16"""
    tally = ground.tally("D16")
    if not ground.writes:
        return tally.finding("not_tested", _UNWRITABLE)
    root, shapes = ground.folder / "odd", ground.shaped()
    folders = {
        "for layers that do not exist": lora.write_other_layers(root / "layers", shapes, seed=3),
        "for a base of another width": lora.write_other_width(root / "width", shapes, seed=4),
        "without any effect": lora.write(root / "zero", shapes, seed=5, size=0),
    }
    accepted, stopped = await _offered(ground, tally, folders, used=False)
    if stopped or not accepted:
        return stopped or tally.by_answers(handled="refused, and nobody else noticed")
    return tally.finding("present", "loaded with 200: adapters " + "; ".join(accepted))


async def _offered(
    ground: Ground, tally: Tally, folders: Mapping[str, Path], *, used: bool
) -> tuple[list[str], Finding | None]:
    """(what was taken, what ends the check), with everybody else asked after each. ``used``: what is taken is
    asked, too."""
    accepted, unsaid = [], None
    for kind, folder in folders.items():
        offer = await ground.offer(kind, folder=folder)
        tally.note(offer.status)
        if offer.taken:
            accepted.append(kind)
            for prompt in ground.prompts if used else ():
                tally.note((await ground.ask(offer.name, prompt)).status)
            await ground.unload(offer.name)
        harmed = await harm(ground, tally, offer.status, f"the load of an adapter ({kind})")
        if harmed is not None and harmed.outcome == "present":
            return accepted, harmed
        unsaid = unsaid or harmed
        for weights in ground.weights():
            prompt = ground.drawn.choice(ground.prompts)
            tally.count(await ground.ask(ground.name_of(weights), prompt), weights=weights, prompt=prompt)
    return accepted, None if accepted or tally.mixups else unsaid
