"""Recipes that build on recipes and on versions: trained first, pinned by digest, kept in the lineage."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.models import Tenant
from server.assembly import bases, training
from server.assembly.catalog import initialise, open_catalog
from server.workspace import Workspace
from tests.support.tiny_model import RECIPE, write_recipe
from trainer.errors import BaseDiffers, ForeignModel, RecipeInvalid, RunNotFinished
from trainer.events import ignore
from trainer.inputs import adapter_digest
from trainer.trained import TrainedRun

FIRST = RECIPE.replace("steps: 6", "steps: 2")
SECOND = FIRST.replace("seed: 7", "seed: 8\nstart: {recipe: recipe.yaml}")


@pytest.fixture
def workspace(tmp_path: Path, base_folder: Path) -> Workspace:
    place = initialise(tmp_path / "work")
    catalog = open_catalog(place)
    catalog.create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="test")
    bases.register(place, catalog, name="tiny", source=str(base_folder), revision=None, actor="test")
    return place


def run(workspace: Workspace, recipe: Path) -> tuple[TrainedRun, list[TrainedRun]]:
    """The recipe's run, and those of the recipes before it."""
    before: list[TrainedRun] = []

    def execute(ready: training.Ready) -> TrainedRun:
        before.append(training.run(workspace, ready, ignore, fresh=False))
        return before[-1]

    ready = training.prepare(workspace, open_catalog(workspace), recipe, before=execute)
    return training.run(workspace, ready, ignore, fresh=False), before


def test_the_recipe_before_is_trained_first_and_reused_afterwards(
    workspace: Workspace, tmp_path: Path
) -> None:
    write_recipe(tmp_path, FIRST)
    second = tmp_path / "second.yaml"
    second.write_text(SECOND)
    found, (first,) = run(workspace, second)
    assert found.plan.inputs == {"start": adapter_digest(first.adapter)}
    assert found.plan.parent is None  # it was never pushed
    assert not first.reused
    weights = "adapter_model.safetensors"
    assert Digest.of_file(found.adapter / weights) != Digest.of_file(first.adapter / weights)
    assert found.beside["start"].metrics["copied"].n == 7
    again, (reused,) = run(workspace, second)
    assert reused.reused
    assert again.reused
    assert again.plan.identity() == found.plan.identity()


def test_a_change_of_the_first_recipe_changes_the_second_plan(workspace: Workspace, tmp_path: Path) -> None:
    write_recipe(tmp_path, FIRST)
    second = tmp_path / "second.yaml"
    second.write_text(SECOND)
    found, _ = run(workspace, second)
    (tmp_path / "recipe.yaml").write_text(FIRST.replace("seed: 7", "seed: 70"))
    other, _ = run(workspace, second)
    assert other.plan.recipe == found.plan.recipe
    assert other.plan.identity() != found.plan.identity()


def test_a_version_that_is_continued_is_the_parent_of_the_new_one(
    workspace: Workspace, tmp_path: Path
) -> None:
    catalog = open_catalog(workspace)
    first, _ = run(workspace, write_recipe(tmp_path, FIRST))
    version = training.push(workspace, catalog, first, actor="test").version
    second = tmp_path / "second.yaml"
    second.write_text(SECOND.replace("recipe: recipe.yaml", f"version: 'bank_a/assistant@{version}'"))
    found, before = run(workspace, second)
    assert before == []
    assert found.plan.parent == version
    pushed = training.push(workspace, catalog, found, actor="test").version
    assert catalog.manifest(pushed).provenance.parent == version
    assert catalog.manifest(version).provenance.parent is None


def test_a_plan_of_a_chain_needs_its_inputs(workspace: Workspace, tmp_path: Path) -> None:
    write_recipe(tmp_path, FIRST)
    second = tmp_path / "second.yaml"
    second.write_text(SECOND)
    catalog, known = open_catalog(workspace), partial(training.known, workspace)
    with pytest.raises(RunNotFinished, match="bank_a/assistant comes first"):
        training.prepare(workspace, catalog, second, before=known)
    run(workspace, second)
    ready = training.prepare(workspace, catalog, second, before=known)
    assert set(ready.planned.plan.inputs) == {"start"}


def test_recipes_that_build_on_themselves_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    write_recipe(tmp_path, SECOND.replace("recipe: recipe.yaml", "recipe: other.yaml"))
    (tmp_path / "other.yaml").write_text(SECOND)
    with pytest.raises(RecipeInvalid, match=r"recipe\.yaml builds on itself"):
        run(workspace, tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("start", "what"),
    [
        ("{}", "must name exactly one of version, recipe"),
        ("{version: 'bank_a/x:live', recipe: a.yaml}", "must name exactly one of version, recipe"),
        ("{folder: x}", "is not a known key"),
    ],
)
def test_a_start_is_named_in_exactly_one_way(
    workspace: Workspace, tmp_path: Path, start: str, what: str
) -> None:
    write_recipe(tmp_path, FIRST.replace("seed: 7", f"start: {start}"))
    with pytest.raises(RecipeInvalid, match=what):
        run(workspace, tmp_path / "recipe.yaml")


def test_another_tenants_adapter_is_no_start_whether_it_exists_or_not(
    workspace: Workspace, tmp_path: Path
) -> None:
    catalog = open_catalog(workspace)
    catalog.create_tenant(Tenant(id="retail_b", display_name="Retail B"), actor="test")
    first, _ = run(workspace, write_recipe(tmp_path, FIRST))
    version = training.push(workspace, catalog, first, actor="test").version
    theirs = FIRST.replace("tenant: bank_a", "tenant: retail_b")
    for start in (
        f"version: 'bank_a/assistant@{version}'",
        "version: 'bank_a/nothing:live'",
        "recipe: recipe.yaml",
    ):
        other = tmp_path / "other.yaml"
        other.write_text(theirs.replace("seed: 7", f"start: {{{start}}}"))
        with pytest.raises(ForeignModel, match=r"bank_a/\w+ is not an adapter of retail_b"):
            run(workspace, other)


def test_another_tenants_recipe_is_refused_before_it_is_trained(workspace: Workspace, tmp_path: Path) -> None:
    write_recipe(tmp_path, FIRST)
    other = tmp_path / "other.yaml"
    other.write_text(SECOND.replace("tenant: bank_a", "tenant: retail_b"))

    def execute(ready: training.Ready) -> TrainedRun:
        pytest.fail(f"{ready.planned.name} was trained")

    with pytest.raises(ForeignModel, match="bank_a/assistant is not an adapter of retail_b"):
        training.prepare(workspace, open_catalog(workspace), other, before=execute)


def test_the_owner_that_is_given_on_the_command_line_owns_the_whole_chain(
    workspace: Workspace, tmp_path: Path
) -> None:
    catalog = open_catalog(workspace)
    catalog.create_tenant(Tenant(id="retail_b", display_name="Retail B"), actor="test")
    write_recipe(tmp_path, FIRST)
    second = tmp_path / "second.yaml"
    second.write_text(SECOND)
    before: list[TrainedRun] = []

    def execute(ready: training.Ready) -> TrainedRun:
        before.append(training.run(workspace, ready, ignore, fresh=False))
        return before[-1]

    ready = training.prepare(workspace, catalog, second, ["tenant=retail_b"], before=execute)
    assert [one.name.tenant for one in before] == [ready.planned.name.tenant] == ["retail_b"]


def test_an_adapter_for_another_base_is_no_start(workspace: Workspace, tmp_path: Path) -> None:
    catalog = open_catalog(workspace)
    other = tmp_path / "other-base"
    shutil.copytree(bases.folder_of(workspace, "tiny"), other)
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "rope_theta": 5000.0}))
    bases.register(workspace, catalog, name="other", source=str(other), revision=None, actor="test")
    write_recipe(tmp_path, FIRST.replace("base: tiny", "base: other"))
    second = tmp_path / "second.yaml"
    second.write_text(SECOND)
    with pytest.raises(BaseDiffers, match="is for another base than tiny") as refused:
        run(workspace, second)
    assert refused.value.advice == "start from an adapter for tiny, or train on the base that this one is for"
