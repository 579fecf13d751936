"""A Tenon that is up already, asked as its tenants ask it; its aliases are moved only by whoever may.

Versions, routes and tenants stay what they are. With an operator's catalog the aliases of the given tenants
move between versions that were live before, and are back where they were at the end.
"""

import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from registry.digests import Digest
from registry.errors import TenonError
from server.assembly.place import Catalog
from server.mixup import closed, lora, moving, ours_intake, storm, suite
from server.mixup.aliases import Tenants
from server.mixup.errors import NothingToTest
from server.mixup.finding import Finding
from server.mixup.ground import Ground, Plan, Voice
from server.mixup.loading import Loader
from server.mixup.report import Report
from server.mixup.suite import Check, Say, Storm
from server.mixup.versions import Known
from server.mixup.wire import CHAT, COMPLETIONS, Wire

_SHARES: Final = {"Q1": 0.6, "D1": 0.05, "D2": 0.35}
_WAYS: Final = ((COMPLETIONS, False), (COMPLETIONS, True), (CHAT, False), (CHAT, True))
"""Cut short wherever a policy allows it: an answer is judged by its first tokens."""
_HARMLESS: Final = frozenset({"D4", "D5", "D12"})
"""Asked of the registry here and not of engines, or not at all."""
_NO_OPERATOR: Final = "not tried: only an operator moves aliases (--control)"
_NO_DISK: Final = "not tried: a machine's disk is out of reach; tenon mixup run --start ours does it"
_NO_INTAKE: Final = "not tried: needs --control and --base, the folder of the base's weights"
_NO_TWINS: Final = "not tried: needs two tenants that were given the same weights (--twins)"
_ALONE: Final = "not tried: no tenant has another version that was live before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """How a Tenon that runs already is come to."""

    url: str
    keys: Mapping[str, str]
    """Tenant -> key."""
    models: tuple[str, ...] = ()
    """Only these; empty: all that the keys list."""
    twins: tuple[str, str] | None = None
    """Two tenants that were given the same weights."""
    catalog: "Catalog | None" = None
    """Of somebody who may move these tenants' aliases."""
    base: Path | None = None


async def of_tenon(door: Door, plan: Plan, *, say: Say) -> Report:
    """Raises NothingToTest, ReferenceRefused, ServerSilent."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tenon-mixup-") as scratch:
        async with Wire(door.url, key=next(iter(door.keys.values()), None)) as wire:
            return await _over(wire, door, plan, Path(scratch), began, say)


async def _over(wire: Wire, door: Door, plan: Plan, folder: Path, began: float, say: Say) -> Report:
    ground = Ground(wire=wire, loader=Loader(wire, "none"), plan=plan, folder=folder)
    voices = await _voices(wire, door, say)
    tenants = Tenants(door.catalog) if door.catalog is not None else None
    known: dict[str, Known] = tenants.known if tenants else {}
    start: dict[str, Known] = {}
    try:
        say("recording what each version answers while nothing else is asked")
        for name, voice in voices.items():
            await _record(ground, door, name, voice, known, start, tenants, say)
        if len(ground.voices) < 2:
            raise NothingToTest("a mix-up takes two: no second model of another adapter answers")
        storms, checks = _asked(ground, door, known, tenants)
        findings = await suite.run(ground, say=say, storms=storms, checks=checks, harmless=_HARMLESS)
    finally:
        for name, first in start.items():
            await _restore(tenants, name, first, say)
    return Report(
        target=door.url,
        seed=plan.seed,
        findings=tuple(findings),
        seconds=time.monotonic() - began,
        noise=ground.references.noise,
        gap=ground.references.nearest(),
        server={"tenants": str(len(door.keys)), "models": str(len(ground.voices))},
    )


async def _voices(wire: Wire, door: Door, say: Say) -> dict[str, Voice]:
    """Raises NothingToTest for a key that is not one."""
    found = {}
    for tenant, key in door.keys.items():
        listed = await wire.models(key)
        if listed is None:
            raise NothingToTest(f"{door.url}/v1/models does not answer to the key of {tenant!r}")
        for model in listed:
            if door.models and model not in door.models:
                continue
            if (voice := await _way(wire, model, key)) is None:
                say(f"left out: {tenant}/{model} answers no plain question")
            else:
                found[f"{tenant}/{model}"] = voice
    return found


async def _way(wire: Wire, model: str, key: str) -> Voice | None:
    """How this model may be asked for log-probabilities: policies differ in what they let through."""
    for path, whole in _WAYS:
        voice = Voice(model, key, path, whole)
        ground = Ground(
            wire=wire, loader=Loader(wire, "none"), plan=Plan(prompts=1), folder=Path(), voices={"": voice}
        )
        reply = await ground.ask("", "ready", max_tokens=2)
        if reply.answered and reply.version:
            return voice
    return None


async def _record(
    ground: Ground,
    door: Door,
    name: str,
    voice: Voice,
    known: dict[str, Known],
    start: dict[str, Known],
    tenants: Tenants | None,
    say: Say,
) -> None:
    """Each of its versions, the one that answers now last."""
    tenant = name.partition("/")[0]
    ground.voices = {**ground.voices, name: voice}
    now = Digest((await ground.ask(name, "ready", max_tokens=2)).version)
    if str(now) in known:  # another model of the same adapter
        ground.voices = {each: ground.voices[each] for each in ground.voices if each != name}
        return
    versions = [now]
    if tenants is not None and (found := await asyncio.to_thread(tenants.find, tenant, name, voice.model)):
        versions = found
    twin = door.twins is not None and tenant in door.twins
    for number, version in enumerate(versions):
        known[str(version)] = Known(version, name, f"twins/{number}" if twin else f"{name}@{version.short}")
        ground.versions.add(str(version))
    for version in reversed(versions):
        each = known[str(version)]
        if tenants is not None and (version != versions[0] or name in start):
            try:
                await asyncio.to_thread(tenants.promote, each)
            except TenonError as error:
                if version == versions[0]:
                    raise
                say(f"{name}: {version.short} stays out of it: {error.message}")
                del known[str(version)]
                continue
            start[name] = known[str(versions[0])]
            await moving.shown(ground, each)
        ground.live[name] = each.weights
        if each.weights not in ground.references.weights():
            await ground.record(name, each.weights)
            await ground.record_long(name, each.weights)


async def _restore(tenants: Tenants | None, name: str, first: Known, say: Say) -> None:
    if tenants is None:
        return
    try:
        await asyncio.to_thread(tenants.promote, first)
    except TenonError as error:
        say(f"{name} is not back at {first.version.short}, promote it again: {error.message}")


def _asked(
    ground: Ground, door: Door, known: Mapping[str, Known], tenants: Tenants | None
) -> tuple[dict[str, tuple[Storm, float]], dict[str, Check]]:
    storms: dict[str, Storm] = {
        "Q1": storm.plain,
        "D1": _closed_base(known),
        "D2": _not_tried("D2", _NO_OPERATOR),
    }
    mine: dict[str, Check] = {
        "S1": suite.CHECKS["S1"],
        "D3": _left("D3", _NO_DISK),
        "D4": _left("D4", _NO_DISK),
        "D6": closed.loading,
        "D12": _left("D12", _NO_INTAKE),
        "D16": _left("D16", _NO_INTAKE),
    }
    mine |= {danger: _left(danger, _NO_OPERATOR) for danger in ("D5", "D7")}
    if tenants is not None:
        moves = moving.Moving(tenants)
        if moves.tenants(ground):
            storms["D2"] = moves.churn
            mine |= {"D5": moves.moved_under_load, "D7": moves.moved_prefix}
        else:
            storms["D2"] = _not_tried("D2", _ALONE)
            mine |= {danger: _left(danger, _ALONE) for danger in ("D5", "D7")}
        if door.base is not None:
            shapes = lora.Shapes.of(door.base)
            mine["D12"] = partial(ours_intake.broken_values, into=tenants, shapes=shapes)
            mine["D16"] = partial(ours_intake.other_structure, into=tenants, shapes=shapes)
    pairs = [name for name in ground.voices if door.twins and name.partition("/")[0] in door.twins]
    if len({name.partition("/")[0] for name in pairs}) == 2:
        ground.twins = (pairs[0], pairs[-1])
    else:
        mine["S1"] = _left("S1", _NO_TWINS)
    return (
        {danger: (each, _SHARES[danger]) for danger, each in storms.items()},
        {danger: mine.get(danger, check) for danger, check in suite.CHECKS.items()},
    )


def _closed_base(known: Mapping[str, Known]) -> Storm:
    async def asked(ground: Ground, count: int) -> Finding:
        return await closed.base(ground, count, [each.version for each in known.values()])

    return asked


def _left(danger: str, why: str) -> Check:
    async def said(ground: Ground) -> Finding:
        return Finding(danger=danger, outcome="not_tested", why=why)

    return said


def _not_tried(danger: str, why: str) -> Storm:
    async def said(ground: Ground, count: int) -> Finding:
        return Finding(danger=danger, outcome="not_tested", why=why)

    return said
