"""What a recipe may point at: where to start, whom to imitate, who judges."""

from typing import Any, ClassVar

from pydantic import Field, model_validator

from registry.canonical import Document
from trainer.recipes.training import DOCUMENTED


class _OneOf(Document):
    """A document of which exactly one of the ``WAYS`` is given."""

    model_config = DOCUMENTED

    WAYS: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _exactly_one(self) -> Any:
        if sum(getattr(self, way) is not None for way in self.WAYS) != 1:
            raise ValueError(f"must name exactly one of {', '.join(self.WAYS)}")
        return self


class AdapterSource(_OneOf):
    """An adapter that exists or will: on the recipe's base unless said otherwise."""

    WAYS = ("version", "recipe")

    version: str | None = Field(default=None, min_length=1)
    """``bank_a/assistant:live`` or ``bank_a/assistant@sha256:…``; it enters the lineage by digest."""
    recipe: str | None = Field(default=None, min_length=1)
    """Another recipe, relative to this one. It is trained first (or reused): so recipes form a chain."""


class Endpoint(Document):
    """An OpenAI-compatible server: somebody's API, or a Tenon router with one of our aliases as ``model``.

    Its key is never in a recipe: the file that ``TENON_ENDPOINT_KEY_FILE`` names holds it, and it is sent to
    the host that ``TENON_ENDPOINT_HOST`` names, and to no other.
    """

    model_config = DOCUMENTED

    url: str = Field(pattern=r"^https?://[^\s/]+(/[^\s?#]*)?$")
    """The base URL, with its ``/v1``."""
    model: str = Field(min_length=1, max_length=400)
    """As that server calls it."""
    headers: dict[str, str] = Field(default_factory=dict)
    """``X-Tenant-ID`` and the like."""
    timeout: float = Field(default=60.0, gt=0, le=3600)
    """Seconds for one answer."""
    concurrency: int = Field(default=4, ge=1, le=256)
    """Questions under way at a time."""


class Teacher(_OneOf):
    """Who is imitated. White-box methods need the weights: a version, a recipe or a base."""

    WAYS = ("version", "recipe", "base", "endpoint")

    version: str | None = Field(default=None, min_length=1)
    """A registered version; its digest is locked in the lineage."""
    recipe: str | None = Field(default=None, min_length=1)
    """Another recipe, trained first or reused."""
    base: str | None = Field(default=None, min_length=1)
    """A registered base without an adapter."""
    endpoint: Endpoint | None = None
    """Somebody's API, for distillation from answers."""


class RewardSettings(Document):
    """One verifier or reward model, and how much it counts. ``tenon data verifiers`` lists them."""

    model_config = DOCUMENTED

    verifier: str = Field(min_length=1, max_length=63)
    """Its name in the table below."""
    weight: float = Field(default=1.0, ge=-1000, le=1000)
    """Rewards are summed with these weights. 0 only reports it."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The verifier's own, checked against its schema."""
    model: AdapterSource | None = None
    """For ``reward_model`` and ``process_reward_model``: which adapter judges."""
    endpoint: Endpoint | None = None
    """For ``judge``: who is asked."""
