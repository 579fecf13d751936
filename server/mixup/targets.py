"""One run against one server: a URL, a vLLM as people start it, or one that is broken on purpose."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from server.mixup import lora, starting, suite
from server.mixup.controls import Control
from server.mixup.errors import NothingToTest, ServerSilent
from server.mixup.ground import Ground, Plan
from server.mixup.loading import Dialect, Loader
from server.mixup.report import Report
from server.mixup.suite import Say
from server.mixup.wire import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A server that runs already."""

    url: str
    key: str | None
    loading: Dialect
    base: Path | None
    """Its weights' folder, for adapters that are made for it."""
    base_model: str | None
    """Its name at the server; None: looked for in /v1/models."""
    folder: Path | None
    """That both sides see."""
    adapters: tuple[str, ...]


async def of_url(where: Where, plan: Plan, *, say: Say) -> Report:
    """Raises ServerSilent, NothingToTest, ReferenceRefused."""
    with tempfile.TemporaryDirectory(prefix="tenon-mixup-") as scratch:
        folder = Path(where.folder or scratch) / f"mixup-{plan.seed}"
        async with Wire(where.url, key=where.key) as wire:
            base = where.base_model or await _base_of(wire, where.adapters)
            if where.loading == "sglang" and base is None:
                raise NothingToTest("SGLang is asked for BASE:ADAPTER, and lists no base: give --base-model")
            ground = Ground(
                wire=wire,
                loader=Loader(wire, where.loading),
                plan=plan,
                folder=folder,
                shapes=lora.Shapes.of(where.base) if where.base else None,
                base=base,
                given=where.adapters,
            )
            return await _report(ground, where.url, say=say)


async def bare(
    recipe: starting.Recipe, plan: Plan, *, inherited: Mapping[str, str], say: Say, target: str = "bare"
) -> Report:
    """vLLM with the flags that its documentation shows for many adapters."""
    with tempfile.TemporaryDirectory(prefix="tenon-mixup-") as scratch:
        root = Path(scratch)
        if recipe.plugins is None:  # the resolver that the documentation shows beside runtime loading
            (root / "resolver").mkdir()
            recipe = replace(recipe, resolver_folder=root / "resolver")
        say(f"starting vLLM ({target})")
        async with (
            starting.vllm(recipe, log=root / "vllm.log", inherited=inherited) as server,
            Wire(server.url, key=starting.KEY) as wire,
        ):
            ground = Ground(
                wire=wire,
                loader=Loader(wire, "vllm"),
                plan=plan,
                folder=root,
                shapes=lora.Shapes.of(recipe.base),
                base=starting.BASE_NAME,
                restart=server.restart,
            )
            report = await _report(ground, target, say=say)
            return replace(report, server={**report.server, "device": recipe.device})


async def control(
    chosen: Control,
    recipe: starting.Recipe,
    *,
    seed: int,
    requests: int,
    inherited: Mapping[str, str],
    say: Say,
) -> Report:
    """What is broken is all that is broken: no eviction, and no plugin but the control's."""
    recipe = replace(recipe, plugins=chosen.plugins, cpu_loras=64)
    plan = chosen.plan(seed=seed, requests=requests, slots=recipe.slots)
    return await bare(recipe, plan, inherited=inherited, say=say, target=chosen.name)


def caught(chosen: Control, report: Report) -> list[str]:
    """Why the control does not count; empty when it was caught, and by what it should be caught by."""
    faults = []
    if report.outcome(chosen.caught_by) != "present":
        faults.append(f"{chosen.caught_by} was found {report.outcome(chosen.caught_by)}")
    return faults + [
        f"{danger} should be handled and is {report.outcome(danger)}"
        for danger in sorted(chosen.beside)
        if report.outcome(danger) != "handled"
    ]


async def _report(ground: Ground, target: str, *, say: Say) -> Report:
    began = time.monotonic()
    version = await ground.wire.version()
    findings = await suite.run(ground, say=say)
    return Report(
        target=target,
        seed=ground.plan.seed,
        findings=tuple(findings),
        seconds=time.monotonic() - began,
        noise=ground.references.noise,
        gap=ground.references.nearest(),
        server={"version": version} if version else {},
    )


async def _base_of(wire: Wire, adapters: tuple[str, ...]) -> str | None:
    """vLLM names an adapter's base as its parent; the one without a parent is the base."""
    names = await wire.models()
    if names is None:
        raise ServerSilent(f"no list of models at {wire.url}/v1/models")
    if missing := sorted(set(adapters) - set(names)):
        raise NothingToTest(f"the server knows no model {missing[0]!r}")
    roots = [name for name, parent in names.items() if parent is None and name not in adapters]
    return roots[0] if roots else None
