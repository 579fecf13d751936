"""Progress bars over the trainer's events, on stderr; plain lines where there is no terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trainer.events import Event, Note, StageAdvanced, StageFinished, StageStarted


@contextmanager
def bars(title: str) -> Iterator[Callable[[Event], None]]:
    """A sink that draws one bar a stage."""
    if not sys.stderr.isatty():
        yield lambda event: _line(title, event)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<34}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def sink(event: Event) -> None:
            if isinstance(event, Note):
                progress.console.print(f"{title}: {event.text}", markup=False)
                return
            if event.stage not in tasks:
                tasks[event.stage] = progress.add_task(f"{title}: {event.stage}", total=None, figures="")
            task = tasks[event.stage]
            if isinstance(event, StageAdvanced):
                figures = "  ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
                progress.update(task, completed=event.done, total=event.total, figures=figures)
            elif isinstance(event, StageFinished):
                total = progress.tasks[task].total or 1
                progress.update(task, completed=total, total=total, figures="reused" if event.reused else "")

        yield sink


def _line(title: str, event: Event) -> None:
    if isinstance(event, StageFinished):
        text = f"{event.stage} {'reused' if event.reused else f'done in {event.seconds:.1f} s'}"
    elif isinstance(event, Note):
        text = event.text
    elif isinstance(event, StageStarted):
        text = f"{event.stage} …"
    else:
        return
    print(f"{title}: {text}", file=sys.stderr)  # noqa: T201
