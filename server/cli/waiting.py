"""Which engines a promotion still waits for, on stderr: a bar, or lines without a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli import render

if TYPE_CHECKING:
    from registry.promotions import Readiness
    from server.assembly.awaiting import Patience

Wait = Annotated[
    float,
    typer.Option(
        "--wait", min=0.1, max=3500, metavar="SECONDS", help="How long engines may take to hold the version"
    ),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Move at once, and answer as soon as an engine holds the version")
]


@contextmanager
def patience(seconds: float, *, no_wait: bool, quiet: bool) -> "Iterator[Patience | None]":
    """None for who does not wait."""
    from server.assembly.awaiting import Patience

    if no_wait:
        yield None
        return
    if quiet:
        yield Patience(seconds)
        return
    waits = False

    def seen(readiness: "Readiness") -> None:
        nonlocal waits
        waits = not readiness.ready
        shown(readiness)

    with _drawn() as shown:
        try:
            yield Patience(seconds, seen)
        except KeyboardInterrupt:
            if waits:
                render.note("Nothing has moved; engines give the version up by themselves")
            raise


@contextmanager
def _drawn() -> "Iterator[Callable[[Readiness], None]]":
    if not sys.stderr.isatty():
        yield lambda readiness: render.note(sentence(readiness))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("engines that hold it", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        task = progress.add_task("", total=None)

        def shown(readiness: "Readiness") -> None:
            progress.update(
                task,
                completed=readiness.attested,
                total=readiness.wanted or None,
                description=missing(readiness),
            )

        yield shown


def sentence(readiness: "Readiness") -> str:
    if not readiness.wanted:
        if readiness.because == "rank":
            return "No engine is for adapters of its rank"
        if readiness.engines:
            return "No engine has room for it yet"
        engines = "the only engine" if readiness.down == 1 else f"all {readiness.down} engines"
        return f"Waiting for engines: {engines} of its base {'is' if readiness.down == 1 else 'are'} down"
    more = missing(readiness)
    return f"{readiness.attested} of {readiness.wanted} engines hold it{f', {more}' if more else ''}"


def moved(readiness: "Readiness", *, percent: float = 100) -> None:
    """Says of an alias that has moved what not every engine can answer yet."""
    if readiness.attested == readiness.wanted > 0:
        return
    if readiness.attested:
        render.note(f"Warning: nobody waited, and only {sentence(readiness)}")
        return
    if readiness.restarts:
        why = "its tenant's own engine starts again with it"
    elif readiness.because == "rank":
        why = "none is for adapters of its rank"
    elif readiness.engines:
        why = "engines load it first"
    elif readiness.down:
        why = "all engines of its base are down"
    else:
        why = "its base has no engine yet"
    what = (
        "requests are refused (adapter_not_ready) until one does"
        if percent == 100
        else "the stable version answers until one does"
    )
    render.note(f"Warning: no engine holds it ({why}); {what}")


def missing(readiness: "Readiness") -> str:
    """Names for who may know them."""
    names = [name for name, attested in (readiness.waits_for or {}).items() if not attested]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    found = [f"waiting for {', '.join(names[:3])}{more}"] if names else []
    if readiness.grow:
        verb = "would have to start" if readiness.alone else "starts" if readiness.grow == 1 else "start"
        found.append(f"{readiness.grow} {verb} afresh for its rank first")
    return ", ".join(found)
