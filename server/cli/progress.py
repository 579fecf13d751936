"""Progress over the trainer's events, on stderr: bars and a live table, or lines without a terminal."""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from trainer.events import Event, Note, StageAdvanced, StageFinished, StageStarted

_COLUMNS: Final = ("loss", "reward", "token_accuracy", "kl", "entropy", "length", "margin", "accurac")
"""Figures whose name holds one of these are worth a column; the rest is in metrics.jsonl."""
_WIDTH: Final = 6
_ROWS: Final = 8


@contextmanager
def bars(title: str) -> Iterator[Callable[[Event], None]]:
    """A sink that draws one bar a stage and, below, the latest steps of the one that learns."""
    if not sys.stderr.isatty():
        yield _Lines(title)
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description:<34}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    console = Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    steps: deque[tuple[int, Mapping[str, float]]] = deque(maxlen=_ROWS)
    with Live(progress, console=console, refresh_per_second=8) as live:

        def sink(event: Event) -> None:
            if isinstance(event, Note):
                console.print(f"{title}: {event.text}", markup=False, highlight=False)
                return
            if event.stage not in tasks:
                tasks[event.stage] = progress.add_task(f"{title}: {event.stage}", total=None, state="")
            task = tasks[event.stage]
            if isinstance(event, StageAdvanced):
                progress.update(task, completed=event.done, total=event.total)
                if event.metrics:
                    steps.append((event.done, event.metrics))
                    live.update(Group(progress, _table(steps)))
            elif isinstance(event, StageFinished):
                total = progress.tasks[task].total or 1
                progress.update(task, completed=total, total=total, state="reused" if event.reused else "")

        yield sink


def _table(steps: "deque[tuple[int, Mapping[str, float]]]") -> Any:
    from rich import box
    from rich.table import Table

    names = columns(steps[-1][1])
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("step", justify="right")
    for name in names:
        grid.add_column(name, justify="right")
    for step, figures in steps:
        grid.add_row(str(step), *(f"{figures[name]:.4g}" if name in figures else "" for name in names))
    return grid


def columns(figures: Mapping[str, float]) -> list[str]:
    """The few figures that people look at, in the order of their worth."""
    ranked = [name for word in _COLUMNS for name in figures if word in name]
    return list(dict.fromkeys(ranked))[:_WIDTH]


class _Lines:
    """A line a stage, and one for every tenth of its steps: logs are read later, and by machines."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._tenths: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageFinished):
            self._say(f"{event.stage} {'reused' if event.reused else f'done in {event.seconds:.1f} s'}")
        elif isinstance(event, Note):
            self._say(event.text)
        elif isinstance(event, StageStarted):
            self._say(f"{event.stage} …")
        elif event.metrics and event.total:
            tenth = 10 * event.done // event.total
            if tenth > self._tenths.get(event.stage, 0):
                self._tenths[event.stage] = tenth
                figures = "  ".join(f"{name} {event.metrics[name]:.4g}" for name in columns(event.metrics))
                self._say(f"{event.stage} {event.done}/{event.total}  {figures}")

    def _say(self, text: str) -> None:
        print(f"{self._title}: {text}", file=sys.stderr)  # noqa: T201
