"""The guide to data says what is true: its examples are read, audited and masked."""

import re
from pathlib import Path

import pytest
import yaml

from registry.digests import Digest
from server.cli.data_audit import audit as audit_command
from server.cli.data_mask import coloured
from server.demo.build_base import SHIPPED_BASE
from trainer.datasets import Dataset, Shape, load_rows
from trainer.datasets.rows import SHAPES
from trainer.methods import METHODS
from trainer.recipes.methods import SftSettings
from trainer.recipes.schema import DataFiles

GUIDE = (Path(__file__).parents[3] / "docs/guides/data.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```([a-z]+(?: [\w.]+)?)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("shape", list(SHAPES))
def test_every_shape_has_an_example_that_is_read(tmp_path: Path, shape: Shape) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(BLOCKS[f"jsonl {shape}"], encoding="utf-8")
    rows = load_rows(path, shape=shape).rows
    assert len(rows) == BLOCKS[f"jsonl {shape}"].count("\n")
    assert all(isinstance(row, SHAPES[shape]) for row in rows)


def test_the_table_names_each_methods_shape() -> None:
    table = dict(re.findall(r"^\| (\w+) \| ([\w, ;]+) \|", GUIDE, re.MULTILINE))
    named = {method: shape for shape in SHAPES for method in re.findall(r"\w+", table[shape])}
    assert {name: named[name] for name in METHODS} == {name: METHODS[name].shape for name in METHODS}


def test_the_table_of_other_names_is_read_as_the_recipe_says(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(BLOCKS["csv train.csv"], encoding="utf-8")
    files = DataFiles.model_validate(yaml.safe_load(BLOCKS["yaml"])["data"])
    rows = load_rows(tmp_path / files.train, shape="conversations", columns=files.columns).rows
    assert [row.messages[-1].content for row in rows] == ["Yes.", "No.", "Yes."]


def test_the_audit_of_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.csv").write_text(BLOCKS["csv train.csv"], encoding="utf-8")
    command = BLOCKS["console"].split()
    assert command[:5] == ["$", "tenon", "data", "audit", "train.csv"]
    audit_command("train.csv", column=[word for word in command if "=" in word])
    assert "train.csv: 3 rows" in capsys.readouterr().err


def test_the_masks_of_the_guide_are_those_of_the_demos_base(tmp_path: Path) -> None:
    from trainer.learning.base import load_tokenizer
    from trainer.learning.supervision import supervision

    path = tmp_path / "rows.jsonl"
    path.write_text(BLOCKS["jsonl conversations"], encoding="utf-8")
    rows = load_rows(path, shape="conversations").rows[2:]
    dataset = Dataset("rows.jsonl", Digest.of(b""), rows)
    _, sample = supervision(load_tokenizer(SHIPPED_BASE), dataset, SftSettings())
    head, _, text = BLOCKS["text mask"].partition("\n…\n")
    shown = f"line {sample.line}, {sample.part}: {sample.learned} of {sample.tokens} tokens are learned"
    assert head == shown
    assert coloured(sample).plain.endswith(text.rstrip("\n"))
