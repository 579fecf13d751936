"""What the terminal shows. Data goes to stdout, everything else to stderr; the terminal's error renderer."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from registry.errors import TenonError

if TYPE_CHECKING:
    from rich.text import Text


def error(fault: TenonError) -> None:
    """``error:`` and ``hint:`` lines, readable without colour; reasons of a refused gate as a list."""
    print(f"error: {fault.message} [{fault.code}]", file=sys.stderr)  # noqa: T201
    for reason in _reasons(fault):
        print(f"  - {reason}", file=sys.stderr)  # noqa: T201
    if fault.advice:
        print(f"hint: {fault.advice}", file=sys.stderr)  # noqa: T201


def note(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def data(value: Any) -> None:
    """Machine-readable: one JSON document."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def text(value: str) -> None:
    sys.stdout.write(value + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, stderr: bool = False) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # A pipe has no width: 200 keeps rows on one line for whoever greps them.
    console = Console(stderr=stderr, width=None if _is_terminal(stderr) else 200)
    grid = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    console.print(grid, markup=False)


def styled(text: "Text", *, title: str) -> None:
    """Coloured where colours are; without them the same characters, and no line is broken."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(title, markup=False, style="bold")
    console.print(text)
    console.print()


def _is_terminal(stderr: bool) -> bool:
    return (sys.stderr if stderr else sys.stdout).isatty()


def _reasons(fault: TenonError) -> Sequence[str]:
    verdict = fault.facts.get("verdict")
    if verdict is not None:
        return tuple(getattr(verdict, "reasons", ()))
    faults = fault.facts.get("faults", ())
    return [str(item) for item in faults] if isinstance(faults, (list, tuple)) else ()
