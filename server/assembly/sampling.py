"""Answers to a file of questions from a version, a base or an endpoint, with what verifiers say of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.names import Ref
from server.assembly.endpoint_key import endpoint_key
from server.assembly.models import find_model
from server.workspace import Workspace
from trainer.answers_file import AnswersFile
from trainer.datasets import load_rows
from trainer.errors import Fault, RecipeInvalid
from trainer.learning.job import TeacherModel
from trainer.plan import load_schema
from trainer.recipes.sources import RewardSettings, Teacher
from trainer.recipes.training import Sampling
from trainer.rewards import Resources, Reward, build
from trainer.selection import Tally, Tried, select, try_answers
from trainer.trained import TrainedRun


@dataclass(frozen=True, slots=True)
class Request:
    """What to draw, from whom, and who checks it."""

    cases: Path
    source: Teacher
    verifiers: tuple[str, ...]
    schema: Path | None
    sampling: Sampling
    samples: int
    seed: int
    max_length: int


def sample(
    workspace: Workspace,
    catalog: LocalCatalog,
    request: Request,
    *,
    kept: Path,
    advanced: Callable[[int, int], None],
) -> tuple[tuple[Tried, ...], Tally]:
    """Every answer is appended to ``kept`` as it arrives: the same request goes on where it was cut off.

    Raises DataInvalid, RecipeInvalid (verifiers), and what the source raises.
    """
    from trainer.learning.sampling import draw

    rewards = _rewards(request)
    cases = load_rows(request.cases, shape="cases")
    source, who = _source(workspace, catalog, request.source)
    with AnswersFile(kept) as answers:
        replies = draw(
            source, cases.rows, file=cases.name, sampling=request.sampling, samples=request.samples,
            seed=request.seed, max_length=request.max_length, kept=answers, who=who, advanced=advanced,
        )  # fmt: skip
    tried = try_answers(rewards, cases.rows, replies, control_tokens=_control_tokens(source))
    return tried, select(tried, rewards, keep="best")[1]


def _rewards(request: Request) -> tuple[Reward, ...]:
    if not request.verifiers:
        raise RecipeInvalid("the command", (Fault("--verifier", "name at least one"),))
    schema = None if request.schema is None else load_schema(request.schema)[0]
    return build([(RewardSettings(verifier=name), Resources(schema=schema)) for name in request.verifiers])


def _source(
    workspace: Workspace, catalog: LocalCatalog, source: Teacher
) -> tuple[TeacherModel, Digest | str]:
    if source.endpoint is not None:
        return TeacherModel(endpoint=source.endpoint, endpoint_key=endpoint_key(source.endpoint.url)), ""
    owner = "" if source.version is None else Ref.parse(source.version).name.tenant
    model = find_model(workspace, catalog, source, tenant=owner, trained=_untrained)
    return TeacherModel(model.base_folder, model.adapter_folder), model.digest


def _untrained(recipe: str) -> TrainedRun:
    raise RecipeInvalid(recipe, (Fault(recipe, "train it first, and name the version"),))


def _control_tokens(source: TeacherModel) -> Sequence[str]:
    """Of an endpoint nothing is known: training on its answers checks them against the student's."""
    from trainer.learning.base import load_tokenizer

    if source.base_folder is None:
        return ()
    tokens: Sequence[str] = load_tokenizer(source.base_folder).all_special_tokens
    return tokens
