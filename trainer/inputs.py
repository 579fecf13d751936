"""The models that a recipe points at, found and pinned before its plan is made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from registry import canonical
from registry.digests import Digest
from trainer.recipes import Recipe
from trainer.recipes.sources import AdapterSource, Teacher

START: Final = "start"
TEACHER: Final = "teacher"


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One model: a base, or an adapter on its base."""

    digest: Digest
    """A version's id, a base's digest, or the digest over an unpublished adapter's files."""
    base: Digest
    """The base that it is, or that its adapter is for."""
    base_folder: Path
    adapter_folder: Path | None = None
    version: bool = False
    """Whether ``digest`` is a registered version."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """By role: ``start``, ``teacher``, ``rewards[2]``, ``evaluation.verifiers[0]``."""

    models: Mapping[str, ModelInput] = field(default_factory=dict)
    endpoint_key: str | None = None
    """For every endpoint of the recipe; it never enters a plan."""

    def get(self, role: str) -> ModelInput | None:
        return self.models.get(role)


def wanted(recipe: Recipe) -> Iterator[tuple[str, AdapterSource | Teacher]]:
    """(role, source) of every model that must be found before the recipe can be planned."""
    if recipe.start is not None:
        yield START, recipe.start
    if recipe.teacher is not None and recipe.teacher.endpoint is None:
        yield TEACHER, recipe.teacher
    for name, lines in (("rewards", recipe.rewards), ("evaluation.verifiers", recipe.evaluation.verifiers)):
        for place, line in enumerate(lines):
            if line.model is not None:
                yield f"{name}[{place}]", line.model


def adapter_digest(folder: Path) -> Digest:
    """Of an adapter that is no version yet: over the digests of its files."""
    return canonical.digest_of(
        {path.name: Digest.of_file(path) for path in sorted(folder.iterdir()) if path.is_file()}
    )
