"""``tenon exposure``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli import render
from server.cli.options import At, Json, place

if TYPE_CHECKING:
    from server.exposure.judge import Exposure


def install(app: typer.Typer) -> None:
    app.command("exposure")(exposure)


def exposure(
    event: Annotated[str, typer.Option("--event", help="Published bug: vllm-47724, or a file like it")],
    since: Annotated[str, typer.Option("--since", help="RFC 3339 time with its zone")],
    engine_version: Annotated[
        str, typer.Option("--engine-version", help="Only of these (>=0.11,<0.32), beside the event's own")
    ] = "",
    until: Annotated[str | None, typer.Option("--until", help="[default: now]")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's answers")] = None,
    clock_slack: Annotated[
        float, typer.Option("--clock-slack", min=0, help="Seconds that clocks may be apart")
    ] = 5.0,
    records: Annotated[
        Path | None, typer.Option("--records", help="Routers' record folders [default: the workspace's]")
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """List the answers that a published bug of the engine could have touched. Exit code 1: some spans cannot
    be judged, because records or log have gaps."""
    from datetime import datetime, timedelta

    from registry.clock import SystemClock, restamp, stamp
    from server.assembly.exposure import exposure as asked
    from server.exposure.events import event_of, versions
    from server.exposure.judge import Question

    found_event = event_of(event)
    until = restamp(until, "--until") if until else stamp(SystemClock().now())
    question = Question(
        event=found_event,
        ranges=[versions(found_event.affected), versions(engine_version)],
        since=datetime.fromisoformat(restamp(since, "--since")),
        until=datetime.fromisoformat(until),
        tenant=tenant,
        slack=timedelta(seconds=clock_slack),
    )
    found = asked(place(workspace), question, records=records)
    if json:
        render.data(_data(found_event.id, found))
    else:
        _show(found)
    if found.unjudged:
        raise typer.Exit(1)


def _data(event: str, found: "Exposure") -> dict[str, Any]:
    from registry.clock import stamp

    shown = ("id", "at", "started_at", "tenant", "model", "adapter", "version", "engine", "boot", "shadow_of")
    return {
        "event": event,
        "answers": found.answers,
        "touched": [
            {name: getattr(each.record, name) for name in shown}
            | {"engine_version": each.engine_version, "why": each.why}
            for each in found.touched
        ],
        "unjudged": [
            {
                "writer": each.writer,
                "from": stamp(each.start),
                "to": stamp(each.end),
                "record": each.record,
                "why": each.why,
            }
            for each in found.unjudged
        ],
    }


def _show(found: "Exposure") -> None:
    columns = ["record", "at", "tenant", "adapter", "engine", "vLLM", "why"]
    rows = [
        [
            *(t.record.id, t.record.at, str(t.record.tenant), str(t.record.adapter), str(t.record.engine)),
            *(t.engine_version, t.why),
        ]
        for t in found.touched
    ]
    if rows:
        render.table("Answers that it could have touched", columns, rows)
    render.note(f"{len(found.touched)} of {found.answers} answers could have been touched")
    for each in found.unjudged:
        span = f"{each.start.isoformat()} to {each.end.isoformat()}"
        what = f"record {each.record}" if each.record else "answers"
        render.note(f"cannot be judged: {what} of {each.writer}, {span}: {each.why}")
