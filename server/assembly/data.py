"""Looking at a recipe's data: what an audit finds, and what is learned of each row."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from registry.catalog.local.catalog import LocalCatalog
from server.assembly import bases
from server.errors import NoSuchLine
from server.workspace import Workspace
from trainer.datasets import Dataset, Shape, load_rows, locate
from trainer.datasets.audit import Audit, TokenCount, audit, unreadable
from trainer.datasets.guess import guess_shape
from trainer.errors import DataInvalid, Fault, RecipeInvalid
from trainer.methods import METHODS
from trainer.plan import check_base, read_data
from trainer.recipes import load_recipe

if TYPE_CHECKING:
    from trainer.learning.supervision import Supervised

_RECIPES: Final = (".yaml", ".yml")


def is_recipe(text: str) -> bool:
    return Path(text).suffix.lower() in _RECIPES


def columns_of(pairs: Sequence[str]) -> dict[str, str | None]:
    """``yours=ours`` pairs of a command line; ``yours=`` drops the column. Raises RecipeInvalid."""
    found: dict[str, str | None] = {}
    faults = []
    for pair in pairs:
        theirs, equals, ours = pair.partition("=")
        if not theirs or not equals:
            faults.append(Fault("--column", f"write yours=ours, such as question=prompt, not {pair!r}"))
        elif theirs in found:
            faults.append(Fault("--column", f"{theirs} is named twice"))
        found[theirs] = ours or None
    if faults:
        hint = "yours= with nothing after it drops a column"
        raise RecipeInvalid("the command line", tuple(faults), hint=hint)
    return found


def audit_recipe(path: Path, overrides: Sequence[str], *, count: TokenCount | None) -> Audit:
    """The audit of the very rows that training would get. Raises RecipeInvalid and what sources raise."""
    loaded = load_recipe(path, overrides=overrides)
    try:
        train, evaluation = read_data(loaded, METHODS[loaded.recipe.method])
    except DataInvalid as error:
        return unreadable(error)
    return audit(train, evaluation, count=count, limit=loaded.recipe.settings.max_length)


def audit_file(
    text: str,
    evaluation: str | None,
    *,
    shape: Shape | None,
    columns: Mapping[str, str | None],
    count: TokenCount | None,
) -> Audit:
    """Without a recipe: the shape is guessed from the columns unless given."""
    source = locate(Path("recipe.yaml"), text)
    faulty: list[DataInvalid] = []

    def load(read: Callable[[], Dataset[Any]]) -> Dataset[Any] | None:
        try:
            return read()
        except DataInvalid as error:
            faulty.append(error)
            return None

    train = load(lambda: load_rows(source, shape=shape or guess_shape(source, columns), columns=columns))
    held = None
    if evaluation is not None:
        cases = locate(Path("recipe.yaml"), evaluation)
        held = load(lambda: load_rows(cases, shape="cases"))
    if train is None or faulty:
        return unreadable(*faulty)
    return audit(train, held, count=count)


def token_count(workspace: Workspace, catalog: LocalCatalog, base: str) -> TokenCount:
    """How many tokens a text is for a registered base. Raises BaseNotFound."""
    from trainer.learning.base import load_tokenizer, surroundings

    _, document, _ = catalog.base(base)
    with surroundings(seed=0):
        tokenizer = load_tokenizer(bases.folder_of(workspace, document.name))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def supervised(
    workspace: Workspace,
    catalog: LocalCatalog,
    recipe: Path,
    overrides: Sequence[str],
    *,
    rows: int,
    line: int | None,
) -> tuple["Supervised", ...]:
    """Of the first ``rows`` rows, or of the one on ``line``: every sample, with what is learned of it.

    Raises NoSuchLine, and what planning and learning would raise.
    """
    from trainer.learning.base import load_tokenizer, surroundings
    from trainer.learning.supervision import supervision

    loaded = load_recipe(recipe, overrides=overrides)
    _, base, _ = catalog.base(loaded.recipe.base)
    folder = bases.folder_of(workspace, base.name)
    check_base(base, folder)
    dataset, _ = read_data(loaded, METHODS[loaded.recipe.method])
    chosen = [row for row in dataset.rows if line is None or row.line == line]
    if not chosen:
        raise NoSuchLine(f"no training row of {dataset.name} begins on line {line}", line=line)
    some = Dataset(dataset.name, dataset.digest, tuple(islice(chosen, rows)))
    with surroundings(seed=0):
        return tuple(supervision(load_tokenizer(folder), some, loaded.recipe.settings))
