"""The recipes that ship: all of them plan, their data is what the demo writes, and every method has one."""

from pathlib import Path

import pytest

from bench.methods.entries import ENTRIES
from registry.bases import describe
from server.demo.build_base import SHIPPED_BASE
from server.demo.tasks.write import contents
from trainer.datasets import load_rows
from trainer.errors import BuiltinNotFound
from trainer.inputs import wanted
from trainer.methods import METHODS
from trainer.recipes import builtin, load_recipe

NAMES = builtin.names()


def test_the_data_that_ships_is_what_the_demo_writes() -> None:
    folder = builtin.FOLDER / "data"
    written = dict(contents())
    assert {path.name for path in folder.iterdir()} == set(written)
    for name, content in written.items():
        assert (folder / name).read_text(encoding="utf-8") == content, name


def test_every_method_has_a_recipe_and_every_recipe_is_measured_or_built_on() -> None:
    recipes = {name: load_recipe(builtin.FOLDER / f"{name}.yaml").recipe for name in NAMES}
    assert {recipe.method for recipe in recipes.values()} == set(METHODS)
    presets = {recipe.grpo.preset for recipe in recipes.values() if recipe.grpo is not None}
    assert presets == {"grpo", "dr_grpo", "dapo", "gspo", "luffy"}
    built_on = {source.recipe for recipe in recipes.values() for _, source in wanted(recipe)}
    measured = {entry.recipe for entry in ENTRIES}
    assert measured | {name for name in NAMES if f"{name}.yaml" in built_on} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_shows_and_reads_its_data(name: str) -> None:
    described = builtin.describe(name)
    assert len(described.shows) > 20
    loaded = load_recipe(builtin.FOLDER / f"{name}.yaml")
    assert loaded.recipe.base in ("demo", "demo-student")
    method = METHODS[loaded.recipe.method]
    rows = load_rows(
        loaded.path(loaded.recipe.data.train), shape=method.shape, columns=loaded.recipe.data.columns
    )
    assert len(rows.rows) >= 50
    assert loaded.recipe.gate is not None, "a version that is to go live needs a gate"


def test_a_copy_holds_everything_that_the_recipe_needs(tmp_path: Path) -> None:
    for name in NAMES:
        written = builtin.copy(name, tmp_path / name)
        assert written[0] == tmp_path / name / f"{name}.yaml"
        for path in written:
            if path.suffix != ".yaml":
                continue
            loaded = load_recipe(path)
            assert loaded.path(loaded.recipe.data.train).is_file()
            if loaded.recipe.data.evaluation is not None:
                assert loaded.path(loaded.recipe.data.evaluation).is_file()
            for _, source in wanted(loaded.recipe):
                assert source.recipe is None or loaded.path(source.recipe).is_file()


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    for name in ("nothing", "../builtin/sft", ""):
        with pytest.raises(BuiltinNotFound):
            builtin.copy(name, tmp_path)


def test_the_student_is_smaller_than_the_base_that_teaches_it() -> None:
    student = SHIPPED_BASE.parent / "student_base"
    assert (
        describe(student, name="s", revision="r").tokenizer
        == describe(SHIPPED_BASE, name="b", revision="r").tokenizer
    )
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (student, SHIPPED_BASE)]
    assert sizes[0] < 0.6 * sizes[1]
