"""Adapters that must not be served at all: broken values (D12), another structure (D16)."""

from server.mixup import lora
from server.mixup.errors import ReferenceRefused
from server.mixup.finding import Finding
from server.mixup.ground import Ground

_UNWRITABLE = "adapters cannot be made and loaded here"
_HUGE = 1e20


async def broken_values(ground: Ground) -> Finding:
    """D12: can leave the server's memory broken for everybody."""
    tally = ground.tally("D12")
    if not ground.writes:
        return tally.finding("not_tested", _UNWRITABLE)
    root, shapes, accepted = ground.folder / "broken", ground.shaped(), []
    folders = {
        "NaN": lora.write_not_finite(root / "nan", shapes, seed=1),
        "huge": lora.write(root / "huge", shapes, seed=2, size=_HUGE),
    }
    for kind, folder in folders.items():
        try:
            name = await ground.load(kind, folder=folder)
        except ReferenceRefused:
            tally.note(400)
            continue
        accepted.append(kind)
        for prompt in ground.prompts:
            tally.note((await ground.ask(name, prompt)).status)
        await ground.unload(name)
        for weights in ground.weights():
            prompt = ground.drawn.choice(ground.prompts)
            tally.count(await ground.ask(ground.name_of(weights), prompt), weights=weights, prompt=prompt)
    if not accepted:
        return tally.finding("handled", "both are refused")
    what = f"{' and '.join(accepted)} weights are loaded with 200"
    if tally.mixups or tally.failed:
        what += f"; {tally.mixups} answers of others were altered, {tally.failed} requests failed"
    return tally.finding("present", what)


async def other_structure(ground: Ground) -> Finding:
    """D16"""
    tally = ground.tally("D16")
    if not ground.writes:
        return tally.finding("not_tested", _UNWRITABLE)
    root, shapes, accepted = ground.folder / "odd", ground.shaped(), []
    folders = {
        "for layers that do not exist": lora.write_other_layers(root / "layers", shapes, seed=3),
        "for a base of another width": lora.write_other_width(root / "width", shapes, seed=4),
        "without any effect": lora.write(root / "zero", shapes, seed=5, size=0),
    }
    for kind, folder in folders.items():
        try:
            name = await ground.load(kind, folder=folder)
        except ReferenceRefused:
            tally.note(400)
            continue
        tally.note(200)
        accepted.append(kind)
        await ground.unload(name)
    if accepted:
        return tally.finding("present", "loaded with 200: adapters " + "; ".join(accepted))
    return tally.finding("handled", "refused")
