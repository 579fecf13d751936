"""``tenon fleet``"""

from typing import TYPE_CHECKING

import typer

from server.cli import render
from server.cli.options import At, Json, place

if TYPE_CHECKING:
    from registry.catalog.fleet import Fleet, FleetEngine, Held
    from registry.models import EngineState
    from server.assembly.place import Place


def install(app: typer.Typer) -> None:
    app.command("fleet")(fleet)


def fleet(json: Json = False, workspace: At = None) -> None:
    """Show all engines: what each is, whom it is for, and what it holds."""
    found = _found(place(workspace))
    if json:
        render.data(found.model_dump(mode="json"))
        return
    render.table(
        "",
        ["engine", "base", "vLLM", "dtype", "state", "guard", "rank", "slots", "for"],
        [_engine(each) for each in found.engines],
    )
    rows = [[each.state.engine, *_held(one)] for each in found.engines for one in each.held]
    if rows:
        render.table("", ["engine", "adapter", "version", "why", "attested"], rows)
    weak = {one.version for each in found.engines for one in each.held if one.strength == "weak"}
    if weak:
        render.note(
            f"Weakly attestable: {len(weak)} of the versions cannot be told from another by behaviour"
        )
    _note_failed(found)
    from registry.catalog.preparations import TOO_LARGE

    for unplaced in found.unplaced:
        name = f"{unplaced.tenant}/{unplaced.adapter}@{unplaced.version.short}"
        says = {
            "full": f"No engine has room for {name} ({unplaced.why})",
            "rank": f"No engine is for adapters of the rank of {name} ({unplaced.why}): {TOO_LARGE}",
            "down": f"All engines for {name} ({unplaced.why}) are down",
            "none": f"There is no engine for {name} ({unplaced.why})",
        }
        render.note(says[unplaced.because])
    if found.missing:
        rows = [
            [
                each.engine,
                each.base or "",
                "down" if each.announced else "never announced",
                _long(each.seconds),
            ]
            for each in found.missing
        ]
        render.table("", ["missing", "base", "state", "for"], rows)
    for doubted in found.doubted:
        render.note(f"{doubted.engine}: {doubted.why} {_long(doubted.seconds)}".rstrip())


def _note_failed(found: "Fleet") -> None:
    failed = [(each.state.engine, one) for each in found.engines for one in each.held if one.failed]
    for engine, one in failed:
        render.note(f"{engine} does not serve {one.tenant}/{one.adapter}@{one.version.short}: {one.failed}")
    if failed:
        from server.engines.errors import AttestationFailed

        render.note(f"What failed ({AttestationFailed.code}): {AttestationFailed.hint}")


def _found(at: "Place") -> "Fleet":
    """A control plane says who is missing; beside one, the same is worked out from its settings."""
    found = at.catalog.fleet()
    if at.workspace is None:
        return found
    from registry.catalog.local.catalog import LocalCatalog
    from server.assembly.discovery import with_expected
    from server.settings import DiscoverySettings, load

    assert isinstance(at.catalog, LocalCatalog)
    return with_expected(found, at.catalog, load(DiscoverySettings))


def _long(seconds: float | None) -> str:
    if seconds is None:
        return ""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h"


def _engine(engine: "FleetEngine") -> list[str]:
    state = engine.state
    attested = sum(held.attested for held in engine.held)
    merged = engine.merging or state.merged
    doing = "up" if state.up else "down"
    if engine.merging is not None:
        doing += ", to be merged"
    elif merged is not None:
        doing += ", merged"
    return [
        state.engine,
        engine.base,
        state.engine_version,
        state.dtype,
        doing,
        "yes" if state.guarded else "no",
        _ranks(state),
        f"{attested}/{state.names or state.max_loras}",
        engine.exclusive or "all",
    ]


def _ranks(state: "EngineState") -> str:
    largest = "" if state.max_rank is None else str(state.max_rank)
    return largest if state.slot_rank is None else f"{state.slot_rank} of {largest or 'any'}"


def _held(held: "Held") -> list[str]:
    why: str = held.why or "not wanted"
    if held.pinned:
        why += ", pinned"
    if held.leaving:
        why += ", leaving"
    attested = "yes" if held.attested else "failed" if held.failed else "not yet"
    if held.strength == "weak":
        attested = "weakly"
    return [f"{held.tenant}/{held.adapter}", held.version.short, why, attested]
