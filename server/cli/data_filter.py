"""``tenon data filter``"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli import render
from server.cli.options import Json


def install(group: typer.Typer) -> None:
    group.command("filter")(keep_some)


def keep_some(
    sampled: Annotated[Path, typer.Argument(help="What tenon data sample wrote")],
    out: Annotated[Path, typer.Option("--out", "-O", help="File to write (JSON Lines)")],
    pass_rate: Annotated[
        str, typer.Option(help="Only questions whose share of accepted answers lies here: 0.1..0.9")
    ] = "0..1",  # noqa: S107 - no password
    keep: Annotated[
        Literal["best", "shortest", "all"], typer.Option(help="Which of a question's accepted answers")
    ] = "best",
    write: Annotated[
        Literal["conversations", "pairs", "cases"],
        typer.Option(help="conversations for sft, pairs for dpo and the like, cases for RL"),
    ] = "conversations",
    json: Json = False,
) -> None:
    """Make training data of sampled answers: best-of-N, preference pairs, or questions worth asking.

    A question that was never answered right is always left out: there is nothing to learn from it.
    """
    from trainer.errors import NothingLeft
    from trainer.tried_file import filtered, read_tried

    bounds = _bounds(pass_rate)
    tried = read_tried(sampled)
    text, count = filtered(tried, keep=keep, pass_rate=bounds, written=write)
    if not count:
        raise NothingLeft(f"none of {len(tried)} questions gives a row")
    out.write_text(text, encoding="utf-8")
    if json:
        render.data({"questions": len(tried), "rows": count})
        return
    render.note(f"{count} {write} of {len(tried)} questions in {out}")


def _bounds(text: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    try:
        bounds = float(low), float(high)
    except ValueError:
        bounds = (1.0, 0.0)
    if not dots or not 0 <= bounds[0] <= bounds[1] <= 1:
        raise typer.BadParameter("write it as 0.1..0.9", param_hint="--pass-rate")
    return bounds
