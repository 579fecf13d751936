"""``tenon mixup``: does a server with many adapters ever answer with the wrong one?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from server.cli import render

if TYPE_CHECKING:
    from server.mixup.ground import Plan
    from server.mixup.report import Report
    from server.mixup.starting import Recipe

Seed = Annotated[int, typer.Option("--seed", help="The same seed asks the same questions")]
Slots = Annotated[
    int, typer.Option("--slots", min=1, help="Adapters the server works on at a time (vLLM's --max-loras)")
]
Device = Literal["cpu", "cuda"]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON for machines")]
Written = Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write the report as JSON")]


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Look for answers that came from the wrong adapter", no_args_is_help=True)
    group.command("run")(run)
    group.command("control")(control)
    app.add_typer(group, name="mixup")


def run(
    url: Annotated[str | None, typer.Option("--url", help="A running OpenAI-compatible server")] = None,
    start: Annotated[
        Literal["bare", "ours"] | None,
        typer.Option("--start", help="Start one here instead: stock vLLM, or Tenon's whole stack"),
    ] = None,
    device: Annotated[
        Device | None, typer.Option("--device", help="What --start runs vLLM on [default: cpu]")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="File with the server's API key", exists=True)
    ] = None,
    loading: Annotated[
        Literal["vllm", "sglang", "none"], typer.Option("--loading", help="How adapters come and go")
    ] = "vllm",
    base: Annotated[
        Path | None, typer.Option("--base", help="Folder of the base's weights: adapters are made for it")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", help="The base's name at the server [default: as listed]")
    ] = None,
    shared_folder: Annotated[
        Path | None, typer.Option("--shared-folder", help="Where the server reads what is written here")
    ] = None,
    adapters: Annotated[
        str, typer.Option("--adapters", metavar="NAME,…", help="Adapters (or models) that the server has")
    ] = "",
    tenant: Annotated[
        list[str] | None,
        typer.Option(
            "--tenant",
            metavar="NAME=KEY_FILE",
            help="Of a running Tenon, and the file with its key; give two or more",
        ),
    ] = None,
    twins: Annotated[
        str, typer.Option("--twins", metavar="NAME,NAME", help="Two tenants with the same weights (S1)")
    ] = "",
    control: Annotated[
        str | None,
        typer.Option(
            "--control",
            metavar="DIR|URL",
            help="Workspace or control plane of that Tenon: their aliases are moved meanwhile, and back",
        ),
    ] = None,
    admin_key_file: Annotated[
        Path | None,
        typer.Option("--admin-key-file", help="File with the key for --control [default: tenon login's]"),
    ] = None,
    requests: Annotated[int, typer.Option("--requests", min=1, help="How many answers are judged")] = 2000,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="At most this long for each storm of requests")
    ] = None,
    seed: Seed = 0,
    slots: Slots = 4,
    salts: Annotated[
        Literal["none", "each", "same"],
        typer.Option("--salts", help="What your gateway says as cache_salt: nothing, one a tenant, or one"),
    ] = "none",
    update: Annotated[
        Literal["reuse", "fresh"],
        typer.Option("--update", help="Whether new weights get the old name and path, or new ones"),
    ] = "reuse",
    only: Annotated[str, typer.Option("--only", metavar="D2,D7,…", help="Only these dangers")] = "",
    destructive: Annotated[
        bool, typer.Option("--destructive", help="Also what can end the server (always, with --start)")
    ] = False,
    expect: Annotated[
        Path | None, typer.Option("--expect", help="Compare with an earlier report instead", exists=True)
    ] = None,
    report: Written = None,
    json: Json = False,
) -> None:
    """Ask a server with many adapters until it mixes them up, or does not (exit code 1: it does)."""
    import asyncio

    from registry.errors import InvalidInput
    from server.mixup import targets
    from server.mixup.ground import Plan

    if (url is None) == (start is None):
        raise InvalidInput("give either --url or --start")
    if device is not None and start is None:
        raise InvalidInput("--device goes with --start")
    plan = Plan(
        seed=seed,
        requests=requests,
        seconds=seconds,
        slots=slots,
        pool=slots + 4,
        tenant_salts=salts,
        update=update,
        only=_only(only),
        destructive=destructive or start is not None,
    )
    if tenant:
        if url is None or key_file is not None:
            raise InvalidInput("--tenant goes with --url, and brings its own key")
        found = _asked(url, tenant, plan, adapters, twins, control, admin_key_file, base)
    elif control is not None or admin_key_file is not None or twins:
        raise InvalidInput("--control, --admin-key-file and --twins go with --tenant")
    elif start is not None:
        found = asyncio.run(_started(start, _recipe(base, slots, device), plan))
    else:
        where = targets.Where(
            url=str(url),
            key=key_file.read_text().strip() if key_file else None,
            loading=loading,
            base=base.resolve() if base else None,
            base_model=base_model,
            folder=shared_folder.resolve() if shared_folder else None,
            adapters=_names(adapters),
        )
        found = asyncio.run(targets.of_url(where, plan, say=render.note))
    _show(found, report, json=json)
    _end(found, expect)


def control(
    name: Annotated[
        str, typer.Argument(help="fix-47724-removed, name-reused, salt-colliding or cache-denied")
    ],
    base: Annotated[
        Path | None, typer.Option("--base", help="Folder of a base [default: the demo's]")
    ] = None,
    device: Annotated[Device, typer.Option("--device", help="What vLLM runs on")] = "cpu",
    requests: Annotated[int, typer.Option("--requests", min=1, help="How many answers are judged")] = 300,
    seed: Seed = 0,
    slots: Slots = 4,
    report: Written = None,
    json: Json = False,
) -> None:
    """Start something that is broken on purpose; the suite has to notice (exit code 1: it did not)."""
    import asyncio

    from server.mixup import targets
    from server.mixup.controls import CONTROLS
    from server.mixup.errors import ControlPassed, ControlUnknown
    from server.settings import inherited_environment

    if name not in CONTROLS:
        raise ControlUnknown(f"no control is called {name!r}; there are {', '.join(CONTROLS)}")
    chosen = CONTROLS[name]
    found = asyncio.run(
        targets.control(
            chosen,
            _recipe(base, slots, device),
            seed=seed,
            requests=requests,
            inherited=inherited_environment(),
            say=render.note,
        )
    )
    _show(found, report, json=json)
    if faults := targets.caught(chosen, found):
        raise ControlPassed(f"{name} was not caught: {'; '.join(faults)}")
    render.note(f"Caught: {chosen.caught_by} is present, as it has to be")


def _asked(
    url: str,
    tenants: list[str],
    plan: "Plan",
    models: str,
    twins: str,
    control: str | None,
    admin_key_file: Path | None,
    base: Path | None,
) -> "Report":
    import asyncio

    from registry.errors import InvalidInput
    from server.assembly.place import open_place, read_key
    from server.mixup import afar

    keys = {}
    for each in tenants:
        name, _, file = each.partition("=")
        if not name or not file or name in keys:
            raise InvalidInput(f"--tenant takes NAME=KEY_FILE, each name once: {each!r}")
        keys[name] = read_key(Path(file))
    pair = _names(twins)
    if pair and (len(pair) != 2 or not set(pair) <= set(keys)):
        raise InvalidInput("--twins takes two of the tenants: NAME,NAME")
    if admin_key_file is not None and control is None:
        raise InvalidInput("--admin-key-file goes with --control")
    place = None
    if control is not None:
        place = open_place(control, key=None if admin_key_file is None else read_key(admin_key_file))
    door = afar.Door(
        url=url,
        keys=keys,
        models=_names(models),
        twins=(pair[0], pair[1]) if pair else None,
        catalog=place.catalog if place else None,
        base=base.resolve() if base else None,
    )
    try:
        return asyncio.run(afar.of_tenon(door, plan, say=render.note))
    finally:
        if place is not None:
            place.close()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _started(kind: str, recipe: "Recipe", plan: "Plan") -> Any:
    from server.mixup import targets
    from server.settings import inherited_environment

    if kind == "bare":
        return targets.bare(recipe, plan, inherited=inherited_environment(), say=render.note)
    from server.mixup import ours

    return ours.started(recipe, plan, say=render.note)


def _recipe(base: Path | None, slots: int, device: Device | None) -> "Recipe":
    from server.demo.build_base import SHIPPED_BASE
    from server.mixup.starting import Recipe

    return Recipe(base=(base or SHIPPED_BASE).resolve(), slots=slots, device=device or "cpu")


def _only(text: str) -> frozenset[str]:
    from server.mixup.dangers import DANGERS
    from server.mixup.errors import DangerUnknown

    wanted = frozenset(each.strip().upper() for each in text.split(",") if each.strip())
    if unknown := sorted(wanted - set(DANGERS)):
        raise DangerUnknown(f"no danger is called {unknown[0]!r}")
    return wanted


def _show(found: "Report", file: Path | None, *, json: bool) -> None:
    import json as notation

    from server.mixup.report import COLUMNS

    if file is not None:
        file.write_text(notation.dumps(found.document(), indent=1) + "\n", encoding="utf-8")
    if json:
        render.data(found.document())
        return
    render.table(found.target, COLUMNS, found.rows())
    render.text(
        f"{found.requests} requests, {found.judged} judged by what was answered, "
        f"{found.mixups} mix-ups, {found.unclear} unclear"
    )
    for each in (example for finding in found.findings for example in finding.examples[:1]):
        whose = f" as {each.nearest}" if each.nearest else ""
        render.text(f"  {each.request}: {each.asked} {each.kind}{whose} at token {each.at}")


def _end(found: "Report", expect: Path | None) -> None:
    from server.mixup.errors import MixupFound
    from server.mixup.report import differences, expectations

    if expect is not None:
        if differing := differences(found, expectations(expect.read_bytes())):
            raise MixupFound(f"{len(differing)} verdicts differ: {'; '.join(differing)}")
    elif not found.passed:
        lists = (("present", found.present), ("asked in vain", found.in_vain))
        what = [f"{title}: {', '.join(dangers)}" for title, dangers in lists if dangers]
        raise MixupFound("; ".join([f"{found.mixups} mix-ups", *(what or ["nothing was proved"])]))
