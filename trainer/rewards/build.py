"""From the lines of a recipe to rewards that score. Recipes name verifiers, never code to import."""

import json
from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from registry.canonical import Document
from trainer.errors import Fault, RecipeInvalid
from trainer.recipes.sources import RewardSettings
from trainer.rewards import (
    command,
    game,
    judge,
    length,
    reward_model,
    structured,
    text,
    tool_calls,
    unit_tests,
)
from trainer.rewards.kind import Kind, Resources
from trainer.rewards.verifier import Reward

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        *structured.KINDS,
        *length.KINDS,
        *text.KINDS,
        *tool_calls.KINDS,
        *unit_tests.KINDS,
        *command.KINDS,
        *game.KINDS,
        *judge.KINDS,
        *reward_model.KINDS,
    )
}


def build(lines: Sequence[tuple[RewardSettings, Resources]]) -> tuple[Reward, ...]:
    """Raises RecipeInvalid for an unknown verifier, or settings that its schema refuses."""
    faults: list[Fault] = []
    rewards: list[Reward] = []
    taken: dict[str, int] = {}
    for place, (line, resources) in enumerate(lines):
        where = f"rewards[{place}]"
        kind = KINDS.get(line.verifier)
        if kind is None:
            faults.append(Fault(where, f"{line.verifier!r} is not one of {', '.join(sorted(KINDS))}"))
            continue
        try:
            settings = _settings(kind, line)
            verifier = kind.make(settings, resources)
        except ValidationError as error:
            faults += [
                Fault(f"{where}.settings.{'.'.join(map(str, detail['loc']))}", detail["msg"])
                for detail in error.errors(include_url=False)
            ]
            continue
        except ValueError as error:
            faults.append(Fault(where, str(error)))
            continue
        taken[kind.name] = taken.get(kind.name, 0) + 1
        name = kind.name if taken[kind.name] == 1 else f"{kind.name}_{taken[kind.name]}"
        rewards.append(Reward(name, line.weight, verifier, kind.is_binary(settings)))
    if faults:
        raise RecipeInvalid("the recipe", tuple(faults))
    return tuple(rewards)


def _settings(kind: Kind, line: RewardSettings) -> Document:
    """As JSON would give them: lists where a class has tuples. Raises ValidationError."""
    return kind.settings.model_validate_json(json.dumps(line.settings))
