"""``tenon data verifiers`` and ``tenon data verify``"""

import json as text_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from server.cli import render
from server.cli.options import At, Json, root

if TYPE_CHECKING:
    from trainer.rewards import Kind


def install(group: typer.Typer) -> None:
    group.command("verifiers")(verifiers)
    group.command("verify")(verify)


def verifiers(json: Json = False) -> None:
    """List the verifiers that a recipe's rewards may name, with their settings."""
    from trainer.rewards import KINDS

    kinds = [KINDS[name] for name in sorted(KINDS)]
    if json:
        render.data(
            [
                {
                    "name": kind.name,
                    "summary": kind.summary,
                    "binary": _GIVES[_gives(kind)],
                    "settings": kind.settings.model_json_schema(),
                }
                for kind in kinds
            ]
        )
        return
    rows = [[kind.name, _gives(kind), _settings(kind.settings), kind.summary] for kind in kinds]
    render.table("", ["verifier", "gives", "settings", "what it asks"], rows)


_GIVES: Final[dict[str, bool | None]] = {"0 or 1": True, "number": False, "by settings": None}


def _gives(kind: "Kind") -> str:
    """What scores look like; with some verifiers that depends on their settings."""
    if isinstance(kind.binary, bool):
        return "0 or 1" if kind.binary else "number"
    return "by settings"


def verify(
    file: Annotated[Path, typer.Argument(help="Cases with a completion (or answer) each, JSON Lines")],
    verifier: Annotated[str | None, typer.Option(help="Who judges; tenon data verifiers lists them")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the verifier's settings (value as JSON)")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Judge by all rewards of this recipe instead")] = None,
    schema: Annotated[Path | None, typer.Option(help="JSON Schema for the verifier schema_valid")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Score answers that stand in a file: try a verifier before a model learns to please it."""
    from trainer.answered import means, read_answered
    from trainer.plan import load_schema
    from trainer.recipes.sources import RewardSettings
    from trainer.rewards import Resources, build, score

    if (verifier is None) == (recipe is None) or (setting and verifier is None):
        raise typer.BadParameter("give --verifier (with --set) or --recipe")
    answers = read_answered(file)
    if recipe is not None:
        rewards = _of_recipe(recipe, workspace)
    else:
        line = RewardSettings.build({"verifier": verifier, "settings": _given(setting or [])})
        resources = Resources(schema=load_schema(schema)[0] if schema else None)
        rewards = build([(line, resources)])
    scored = score(rewards, answers)
    if json:
        render.data(
            [
                {"line": answer.case.line, "accepted": one.accepted, "total": one.total, "scores": one.scores}
                for answer, one in zip(answers, scored, strict=True)
            ]
        )
        return
    names = [reward.name for reward in rewards]
    render.table(
        "",
        ["line", *names, "accepted"],
        [
            [
                str(answer.case.line),
                *(_shown(one.scores[name]) for name in names),
                "yes" if one.accepted else "no",
            ]
            for answer, one in zip(answers, scored, strict=True)
        ],
    )
    for name, mean, count in means(scored):
        render.note(f"{name}: {_shown(mean)} over {count} of {len(answers)} answers")


def _of_recipe(recipe: Path, workspace: str | None) -> tuple[Any, ...]:
    from functools import partial

    from server.assembly import training
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    place = find(root(workspace))
    ready = training.prepare(place, open_catalog(place), recipe, before=partial(training.known, place))
    return tuple(ready.planned.rewards)


def _given(settings: list[str]) -> dict[str, Any]:
    """Values are JSON; what is none is text."""
    found: dict[str, Any] = {}
    for one in settings:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise typer.BadParameter("write it as key=value", param_hint="--set")
        try:
            found[key] = text_of.loads(value)
        except ValueError:
            found[key] = value
    return found


def _settings(kind: Any) -> str:
    shown = []
    for name, setting in kind.model_fields.items():
        default = None if setting.is_required() else setting.get_default()
        shown.append(f"{name} (required)" if setting.is_required() else f"{name}={text_of.dumps(default)}")
    return ", ".join(shown) or "-"


def _shown(score: float | None) -> str:
    return "-" if score is None else f"{score:.3g}"
