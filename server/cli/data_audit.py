"""``tenon data audit``"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from server.cli import render
from server.cli.options import At, Json, root

if TYPE_CHECKING:
    from trainer.datasets.audit import Audit

_PLACES: Final = 5
_FINDINGS: Final = 50
_BARS: Final = " ▁▂▃▄▅▆▇█"


def install(group: typer.Typer) -> None:
    group.command("audit")(audit)


def audit(
    what: Annotated[str, typer.Argument(help="recipe.yaml, or rows: a file, hf://… or s3://…")],
    override: Annotated[list[str] | None, typer.Option("-o", help="key=value over the recipe")] = None,
    evaluation: Annotated[
        str | None, typer.Option("--evaluation", help="Cases, beside a file of rows")
    ] = None,
    shape: Annotated[
        Literal["conversations", "pairs", "labelled", "steps", "cases"] | None,
        typer.Option("--shape", help="Of a file of rows [default: by its columns]"),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", help="Of a file of rows: yours=ours, as in question=prompt; yours= drops it"
        ),
    ] = None,
    base: Annotated[str | None, typer.Option("--base", help="Count tokens of this registered base")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Check training data: format, duplicates, leaks, coverage, lengths, style, refusals, personal data.

    Exits with 1 when something was found that would make the result worthless.
    """
    from server.assembly import data
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    recipe = data.is_recipe(what)
    if recipe and (evaluation or shape or column):
        raise typer.BadParameter("the recipe says what --evaluation, --shape and --column would")
    if override and not recipe:
        raise typer.BadParameter("-o changes a recipe, and this is a file of rows")
    count = None
    if base is not None:
        place = find(root(workspace))
        count = data.token_count(place, open_catalog(place), base)
    if recipe:
        found = data.audit_recipe(Path(what), override or (), count=count)
    else:
        found = data.audit_file(
            what, evaluation, shape=shape, columns=data.columns_of(column or ()), count=count
        )
    if json:
        render.data({"digest": found.identity(), **found.model_dump(mode="json")})
    else:
        _show(found)
    if found.counts["error"]:
        raise typer.Exit(1)


def _show(found: "Audit") -> None:
    for side in (found.train, found.evaluation):
        if side is not None:
            render.note(f"{side.name}: {_counted(side.rows, 'row')}, {side.digest}")
    findings = [
        [one.severity, one.check, one.what, _listed(one.places)] for one in found.findings[:_FINDINGS]
    ]
    if findings:
        render.table("", ["severity", "check", "finding", "where"], findings)
    if len(found.findings) > _FINDINGS:
        render.note(f"and {len(found.findings) - _FINDINGS} more; all of them with --json")
    if cells := found.figures.get("coverage", {}).get("cells"):
        columns, rows = _coverage(cells)
        render.table("Coverage: training rows / cases", columns, rows)
    if rows := list(_lengths(found.figures.get("lengths", {}))):
        render.table("Lengths in words", ["", "min", "median", "p95", "max", "distribution"], rows)
    if rows := list(_style(found.figures)):
        render.table("Answers", ["", "share", ""], rows)
    counts = ", ".join(_counted(n, name) for name, n in found.counts.items())
    render.note(f"{counts}; digest {found.identity()}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
    return ", ".join(places[:_PLACES]) + more


def _coverage(cells: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A row an intent, a column a branch."""
    branches = sorted({cell["branch"] for cell in cells})
    at = {(cell["intent"], cell["branch"]): f"{cell['train']} / {cell['cases']}" for cell in cells}
    intents = sorted({cell["intent"] for cell in cells})
    rows = [[intent, *(at.get((intent, branch), "") for branch in branches)] for intent in intents]
    return ["intent", *branches], rows


def _lengths(figures: dict[str, Any]) -> Iterator[list[str]]:
    for side, parts in figures.items():
        for part, spread in parts.items():
            words = [str(value) for value in spread["words"].values()]
            yield [f"{side} {part}", *words, _histogram(spread["histogram"]["counts"])]
            if "tokens" in spread:
                yield ["  in tokens", *(str(value) for value in spread["tokens"].values()), ""]


def _histogram(counts: Sequence[int]) -> str:
    """A bar for each bin; a bin that holds anything shows."""
    top = max(counts)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] for count in counts)


def _style(figures: dict[str, Any]) -> Iterator[list[str]]:
    style = figures.get("style", {})
    if style:
        yield ["JSON", f"{style['json']:.0%}", ""]
        for opening in style["openings"]:
            yield ["begin with", f"{opening['share']:.0%}", opening["text"]]
        for keys in style["keys"]:
            yield ["keys", f"{keys['rows'] / style['answers']:.0%}", ", ".join(keys["order"])]
    for role, share in figures.get("refusals", {}).items():
        yield [f"refuse ({role})", f"{share:.0%}", ""]
    for role, counts in figures.get("languages", {}).items():
        total = sum(counts.values())
        named = ", ".join(f"{name} {count / total:.0%}" for name, count in counts.items() if name != "?")
        if named:
            yield [f"language ({role})", "", named]
