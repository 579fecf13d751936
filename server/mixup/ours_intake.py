"""Adapters that must not be served at all, brought to Tenon's registry: broken values, another structure."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from registry.errors import IntakeRefused
from server.mixup import lora
from server.mixup.finding import Finding, Tally
from server.mixup.ground import Ground


class Registry(Protocol):
    def push(self, tenant: str, weights: str, folder: Path) -> object:
        """Raises IntakeRefused."""


async def broken_values(ground: Ground, *, into: Registry, shapes: lora.Shapes) -> Finding:
    """D12"""
    root = ground.folder / "broken"
    folders = {
        "NaN": lora.write_not_finite(root / "nan", shapes, seed=1),
        "huge": lora.write(root / "huge", shapes, seed=2, size=1e20),
    }
    return await _refused(ground.tally("D12"), ground, into, folders)


async def other_structure(ground: Ground, *, into: Registry, shapes: lora.Shapes) -> Finding:
    """D16"""
    root = ground.folder / "odd"
    folders = {
        "other layers": lora.write_other_layers(root / "layers", shapes, seed=3),
        "another width": lora.write_other_width(root / "width", shapes, seed=4),
        "no effect": lora.write(root / "zero", shapes, seed=5, size=0),
    }
    return await _refused(ground.tally("D16"), ground, into, folders)


async def _refused(tally: Tally, ground: Ground, into: Registry, folders: Mapping[str, Path]) -> Finding:
    tenant, taken = next(iter(ground.voices)), []
    for kind, folder in folders.items():
        try:
            await asyncio.to_thread(into.push, tenant, kind, folder)
        except IntakeRefused:
            tally.note(400)
        else:
            taken.append(kind)
    if taken:
        return tally.finding("present", f"the registry took: {', '.join(taken)}")
    return tally.finding("handled", "refused by the registry, before any engine")
