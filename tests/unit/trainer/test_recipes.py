"""Recipes: every fault at once, with its line, and nothing that YAML could be tricked into."""

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.bases import TARGETS
from tests.support.tiny_model import RECIPE
from trainer.errors import RecipeInvalid
from trainer.recipes import json_schema, load_recipe, parse_recipe
from trainer.recipes.lora import Target
from trainer.recipes.yaml import parse, scalar


def faults(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeInvalid) as caught:
        parse_recipe(text, overrides=overrides)
    return [str(fault) for fault in caught.value.faults]


def test_a_recipe_is_read_whole() -> None:
    recipe = parse_recipe(RECIPE)
    assert recipe.settings.learning_rate == 0.01
    assert recipe.lora.targets == TARGETS
    assert str(recipe.name) == "bank_a/assistant"
    assert recipe.evaluation.json_schema == "schema.json"
    assert recipe.gate_policy().rules[0].over_base == 0.2


def test_layout_does_not_change_the_identity_of_a_recipe_and_values_do() -> None:
    same = RECIPE.replace("seed: 7", "# a comment\nseed:   7").replace(
        "all-linear", f"[{', '.join(TARGETS[::-1])}]"
    )
    assert parse_recipe(same).identity() == parse_recipe(RECIPE).identity()
    assert parse_recipe(RECIPE, overrides=["seed=8"]).identity() != parse_recipe(RECIPE).identity()


def test_all_faults_come_at_once_with_their_lines() -> None:
    text = """\
kind: tenon.recipe/v1
tenant: Bank A
adapter: assistant
base: demo
methd: sft
method: dop
seed: "7"
data: {evaluation: cases.jsonl}
lora:
  rnk: 8
  targets: [q_proj, lm_head]
sft:
  steps: 80
  learning_rate: 0
  warmup_steps: 90
  schedule: cosin
gate:
  rules:
    - {metric: policy, atleast: 0.9}
    - {metric: policy}
    - {metric: polcy, at_least: 1}
"""
    found = faults(text)
    assert [fault.split(": ", 2)[:2] for fault in found] == [
        ["recipe.yaml:2", "tenant"],
        ["recipe.yaml:5", "methd"],
        ["recipe.yaml:6", "method"],
        ["recipe.yaml:7", "seed"],
        ["recipe.yaml:8", "data.train"],
        ["recipe.yaml:10", "lora.rnk"],
        ["recipe.yaml:11", "lora.targets[1]"],
        ["recipe.yaml:14", "sft.learning_rate"],
        ["recipe.yaml:15", "sft.warmup_steps"],
        ["recipe.yaml:16", "sft.schedule"],
        ["recipe.yaml:19", "gate.rules[0].atleast"],
        ["recipe.yaml:20", "gate.rules[1]"],
        ["recipe.yaml:21", "gate.rules[2]"],
    ]
    by_key = {fault.split(": ", 2)[1]: fault.split(": ", 2)[2] for fault in found}
    assert by_key["methd"] == "is not a known key; did you mean method?"
    assert by_key["sft.learning_rate"] == "must be > 0"
    assert by_key["sft.schedule"].endswith("did you mean cosine?")
    assert by_key["seed"] == "must be a whole number"
    assert by_key["data.train"] == "is missing"
    assert by_key["gate.rules[0].atleast"] == "is not a known key; did you mean at_least?"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("seed: 1\nseed: 2\n", 2, "seed: written twice, first on line 1"),
        ("a:\n  b: 1\n  b: 1\n", 3, "a.b: written twice"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "tags are not allowed"),
        ("a: !!str 5\n", 1, "tags are not allowed"),
        ("a: &x [1]\nb: *x\n", 1, "anchors and aliases are not allowed"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a: 1\nb: [1\n", 3, ""),
        ("a: 1\n? [1]\n: 2\n", 2, "a key must be text"),
        ("a: \x07\n", 1, "a character that YAML does not allow"),
    ],
)
def test_tricks_of_yaml_are_refused_with_their_line(text: str, line: int, what: str) -> None:
    assert any(fault.startswith(f"recipe.yaml:{line}: {what}") for fault in faults(text)), faults(text)


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("key", ["q_proj{e}", "(?i)q_proj", ""])
def test_a_pattern_that_intake_would_refuse_is_refused_before_the_training(field: str, key: str) -> None:
    (found,) = faults(RECIPE, f"lora.{field}={json.dumps({key: 4})}")
    assert f"lora.{field}" in found
    assert "use a simple expression" in found


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_patterns_that_intake_would_refuse_together_are_refused_before_the_training(field: str) -> None:
    alone = r".*layers\.(0|1|2|3)\.mlp\.(gate|up|down)_proj"
    parse_recipe(RECIPE, overrides=[f"lora.{field}={json.dumps({alone: 4})}"])
    (found,) = faults(RECIPE, f"lora.{field}={json.dumps({alone + '$' * more: 4 for more in range(12)})}")
    assert f"lora.{field}" in found
    assert "too many ways to match" in found


@pytest.mark.parametrize("text", ["", "[]", "just text", "# nothing"])
def test_what_is_no_mapping_is_no_recipe(text: str) -> None:
    assert faults(text) == ["recipe.yaml:1: must be a mapping of keys to values"]


def test_deep_nesting_is_a_fault_and_not_a_crash() -> None:
    assert len(faults("[" * 20_000)) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-3", 0.002), ("1.0e-2", 0.01), ("80", 80), ("+5", 5), ("true", True), ("null", None), ("~", None),
        ("no", "no"), ("on", "on"), ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("1e9999", "1e9999"),
        (".inf", ".inf"), ("0x10", "0x10"), ("9" * 400, "9" * 400),
    ],
)  # fmt: skip
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


LEAVES = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(codec="ascii"))


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)


@given(st.recursive(LEAVES, nested, max_leaves=8))
def test_json_is_yaml_and_is_read_as_json_reads_it(value: Any) -> None:
    parsed = parse(json.dumps(value))
    assert parsed.faults == []
    assert parsed.value == value


def test_overrides_win_and_their_faults_name_them() -> None:
    recipe = parse_recipe(RECIPE, overrides=["sft.steps=9", "lora.targets=[q_proj]", "base=x"])
    assert recipe.settings.steps == 9
    assert faults(RECIPE, "sft.steps=-1") == ["-o sft.steps=-1: sft.steps: must be >= 1"]
    assert faults(RECIPE, "sft.stps=1") == [
        "-o sft.stps=1: sft.stps: is not a known key; did you mean steps?"
    ]
    assert faults(RECIPE, "sft.steps", "seed.x=1", "seed=!!int 3") == [
        "-o sft.steps: write key=value, such as sft.steps=120",
        "-o seed.x=1: seed is not a mapping",
        "-o seed=!!int 3: tags are not allowed (tag:yaml.org,2002:int)",
    ]


def test_a_gate_on_the_schema_needs_a_schema() -> None:
    text = RECIPE.replace("schema: schema.json, ", "").replace("metric: policy", "metric: schema_valid")
    assert "evaluation.schema must name a file" in faults(text)[0]


def test_a_recipe_without_a_gate_has_an_empty_policy_which_refuses() -> None:
    text = "\n".join(line for line in RECIPE.splitlines() if not line.startswith("gate"))
    assert parse_recipe(text).gate_policy().rules == ()


def test_files_that_cannot_be_read_are_faults(tmp_path: Path) -> None:
    with pytest.raises(RecipeInvalid, match="No such file"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(RecipeInvalid, match=r"latin\.yaml:2: is not UTF-8"):
        load_recipe(tmp_path / "latin.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(RecipeInvalid, match="larger than 1 MiB"):
        load_recipe(tmp_path / "huge.yaml")


def test_data_files_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    loaded = load_recipe(tmp_path / "recipe.yaml")
    assert loaded.path(loaded.recipe.data.train) == tmp_path / "train.jsonl"


def test_the_json_schema_accepts_what_is_accepted_and_knows_the_keys() -> None:
    schema = json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(parse(RECIPE).value)) == []
    assert not validator.is_valid({**parse(RECIPE).value, "extra": 1})


def test_targets_are_what_the_registry_lets_in() -> None:
    assert get_args(Target) == TARGETS
