"""The models that a recipe points at, found and pinned before its plan is made."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from registry import canonical
from registry.digests import Digest
from trainer.recipes import Recipe
from trainer.recipes.sources import AdapterSource, Endpoint, Teacher

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
    endpoint_key: Callable[[str], str | None] = field(default=lambda url: None)
    """The key that may be sent to a URL; a recipe names URLs, and its author may not be trusted with the key.
    It never enters a plan."""

    def get(self, role: str) -> ModelInput | None:
        return self.models.get(role)

    def key_for(self, endpoint: Endpoint | None) -> str | None:
        return None if endpoint is None else self.endpoint_key(endpoint.url)


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
