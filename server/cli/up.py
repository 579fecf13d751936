"""``tenon up`` and ``tenon down``"""

import sys
from typing import Annotated, Literal

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    app.command("up")(up)
    app.command("down")(down)


def up(
    base: Annotated[str, typer.Option("--base", help="Registered base, folder, or hub name")] = "demo",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="What vLLM runs on")] = "auto",
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help="Serving precision")] = "auto",
    max_loras: Annotated[int, typer.Option("--max-loras", help="Adapters on the device at a time")] = 8,
    max_lora_rank: Annotated[int, typer.Option("--max-lora-rank", help="Largest rank served")] = 64,
    lora_sizes: Annotated[
        Literal["wanted", "bound"],
        typer.Option(
            "--lora-sizes",
            help="Of several engines: slots for what is wanted when one starts, or for the largest rank",
        ),
    ] = "wanted",
    tool_call_parser: Annotated[
        str,
        typer.Option("--tool-call-parser", help="vLLM's parser; auto: by the chat template; or none"),
    ] = "auto",
    engines: Annotated[
        int, typer.Option("--engines", min=1, max=16, help="How many; each holds the whole base in memory")
    ] = 1,
    fake_engine: Annotated[
        bool, typer.Option("--fake-engine", help="Made-up answers instead of vLLM, to try everything else")
    ] = False,
    allow_uncertified: Annotated[
        bool,
        typer.Option(
            "--allow-uncertified", help="Also a vLLM that has not been through tenon mixup on this device"
        ),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it running and return")] = False,
    port: Annotated[int, typer.Option("--port", help="Port of the OpenAI-compatible API")] = 8400,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Serve this workspace: control plane, attested engines and the router."""
    from server.assembly import bases, machine, stack, supervision
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    place = find(root(workspace))
    name, folder = bases.ensure_registered(place, open_catalog(place), base)
    where = machine.device() if device == "auto" else device
    options = stack.EngineOptions(
        base=str(folder),
        base_name=name,
        device=where,
        dtype=("float32" if where == "cpu" else "bfloat16") if dtype == "auto" else dtype,
        max_loras=max_loras,
        max_lora_rank=max_lora_rank,
        lora_sizes=lora_sizes,
        tool_call_parser={"auto": bases.tool_call_parser(folder), "none": None}.get(
            tool_call_parser, tool_call_parser
        ),
        fake=fake_engine,
        allow_uncertified=allow_uncertified,
    )
    ports = stack.Ports.free(router=port, engines=engines)
    if engines > 1 and not fake_engine and where == "cpu":
        render.note(f"{engines} engines: on a CPU about 3.5 GB of memory each, beside the base")
    state = stack.start(
        place,
        engine=options,
        ports=ports,
        tied=not detach,
        progress=lambda role, doing: render.note(f"{role}: {doing}"),
    )
    render.note(f"Serving at {state.url('router')}/v1 (stop with {'tenon down' if detach else 'Ctrl-C'})")
    if json:
        render.data({"url": f"{state.url('router')}/v1", "control": state.url("control"), "detached": detach})
        sys.stdout.flush()  # whoever waits for it reads a pipe
    if detach:
        return
    watched = supervision.Supervisor(
        place,
        stack.launches(place, options, ports),
        state,
        tied=True,
        tell=lambda role, what: render.note(f"{role}: {what}"),
    )
    try:
        watched.run()
    finally:
        stack.stop(place)


def down(json: Json = False, workspace: At = None) -> None:
    """Stop what `tenon up --detach` or `tenon demo run --keep` left running."""
    from server.assembly import stack
    from server.workspace import find

    stopped = stack.stop(find(root(workspace)))
    if json:
        render.data({"stopped": stopped})
    else:
        render.note("Stopped" if stopped else "Nothing was running")
