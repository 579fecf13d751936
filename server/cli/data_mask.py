"""``tenon data mask``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from server.cli import render
from server.cli.options import At, Json, root

if TYPE_CHECKING:
    from rich.text import Text

    from trainer.learning.supervision import Supervised

_COLOURS: Final = {"+": "bold green", "-": "bold red", "": "dim"}
_BRACKETS: Final = {"+": ("[", "]"), "-": ("{", "}"), "": ("", "")}


def install(group: typer.Typer) -> None:
    group.command("mask")(mask)


def mask(
    recipe: Annotated[Path, typer.Argument(help="recipe.yaml")],
    override: Annotated[list[str] | None, typer.Option("-o", help="key=value over the recipe")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows, from the first")] = 3,
    line: Annotated[int | None, typer.Option("--line", min=1, help="The row on this line instead")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show which tokens of a row are learned: [so], {so} if to be avoided. All others are only read."""
    from server.assembly import data
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    place = find(root(workspace))
    shown = data.supervised(place, open_catalog(place), recipe, override or (), rows=rows, line=line)
    if json:
        render.data([_as_json(sample) for sample in shown])
        return
    for sample in shown:
        head = f"line {sample.line}, {sample.part}: {sample.learned} of {sample.tokens} tokens are learned"
        render.styled(coloured(sample), title=head)


def coloured(sample: "Supervised") -> "Text":
    from rich.text import Text

    text = Text()
    for piece in sample.pieces:
        opening, closing = _BRACKETS[piece.sign]
        # Inside brackets a line break would tear the token apart, and it is one that is learned.
        said = piece.text.replace("\n", "\\n") if piece.sign else piece.text
        text.append(f"{opening}{said}{closing}", style=_COLOURS[piece.sign])
    return text


def _as_json(sample: "Supervised") -> dict[str, object]:
    return {
        "line": sample.line,
        "part": sample.part,
        "tokens": sample.tokens,
        "learned": sample.learned,
        "pieces": [
            {"text": piece.text, "tokens": piece.tokens, "supervision": piece.sign} for piece in sample.pieces
        ],
    }
