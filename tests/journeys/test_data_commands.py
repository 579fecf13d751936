"""``tenon data audit`` and ``mask`` as a person runs them: exit codes, JSON, and text without colour."""

import json
from pathlib import Path

import pytest

from registry.bases import describe
from server.assembly.catalog import initialise, open_catalog
from server.cli.data_mask import mask
from server.demo import data
from server.demo.build_base import SHIPPED_BASE
from server.errors import NoSuchLine
from server.testing.fake_model import fake_contract
from server.workspace import Workspace
from tests.journeys.commands import tenon


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    data.write_data(folder, "retail_b")
    return folder


def test_the_demos_data_are_sound(files: Path) -> None:
    done = tenon("data", "audit", str(files / "recipe.yaml"), "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["findings"] == []
    assert report["digest"].startswith("sha256:")
    cells = report["figures"]["coverage"]["cells"]
    assert all(cell["train"] > 0 and cell["cases"] > 0 for cell in cells)


def test_a_branch_that_is_never_shown_fails_the_audit(files: Path, tmp_path: Path) -> None:
    rows = [line for line in (files / "train.jsonl").read_text().splitlines() if "branch:under" not in line]
    (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n")
    done = tenon("data", "audit", str(tmp_path / "train.jsonl"), "--evaluation", str(files / "cases.jsonl"))
    assert done.code == 1
    assert "the branch under_threshold is asked 48 times and never shown" in done.out
    assert "Coverage: training rows / cases" in done.out
    assert "1 error, 0 warnings" in done.err


def test_faults_of_both_files_are_findings(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("question,answer\na,b\n")
    (tmp_path / "cases.jsonl").write_text("{\n")
    done = tenon(
        "data", "audit", str(tmp_path / "train.csv"), "--evaluation", str(tmp_path / "cases.jsonl"), "--json"
    )
    assert done.code == 1
    findings = json.loads(done.out)["findings"]
    assert [(one["check"], one["places"]) for one in findings] == [
        ("format", ["train.csv"]),
        ("format", ["cases.jsonl:1"]),
    ]
    assert "data.columns: {answer: completion, question: prompt}" in findings[0]["what"]
    named = ["--column", "question=prompt", "--column", "answer=completion"]
    assert tenon("data", "audit", str(tmp_path / "train.csv"), *named).code == 0


def test_what_does_not_fit_together_is_a_usage_error(files: Path) -> None:
    recipe = str(files / "recipe.yaml")
    assert tenon("data", "audit", recipe, "--shape", "pairs").code == 2
    assert tenon("data", "audit", str(files / "train.jsonl"), "-o", "seed=1").code == 2
    unnamed = tenon("data", "audit", str(files / "train.jsonl"), "--column", "prompt")
    assert unnamed.code == 1
    assert "write yours=ours, such as question=prompt, not 'prompt'" in unnamed.err


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """With the demo's base, and a contract that is none: masks do not ask for it."""
    place = initialise(tmp_path_factory.mktemp("mask") / "workspace")
    base = describe(SHIPPED_BASE, name="demo", revision="local")
    open_catalog(place).register_base(base, fake_contract(base), actor="test")
    place.bases.mkdir(exist_ok=True)
    (place.bases / "demo").symlink_to(SHIPPED_BASE)
    return place


def test_masks_of_a_recipe(files: Path, workspace: Workspace) -> None:
    done = tenon("data", "mask", str(files / "recipe.yaml"), "--rows", "2", "-w", str(workspace.root))
    assert done.code == 0, done.err
    heads = [line for line in done.out.splitlines() if line.startswith("line ")]
    assert [head.split(":")[0] for head in heads] == ["line 1, answer 1 of 1", "line 2, answer 1 of 1"]
    assert '[{"][intent][":"]' in done.out
    assert done.out.count("[<|im_end|>]") == 2
    assert "\x1b" not in done.out


def test_masks_for_machines(files: Path, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    mask(files / "recipe.yaml", line=2, json=True, workspace=str(workspace.root))
    (sample,) = json.loads(capsys.readouterr().out)
    row = json.loads((files / "train.jsonl").read_text().splitlines()[1])
    learned = "".join(piece["text"] for piece in sample["pieces"] if piece["supervision"] == "+")
    assert learned == row["messages"][-1]["content"] + "<|im_end|>"
    with pytest.raises(NoSuchLine):
        mask(files / "recipe.yaml", line=900, workspace=str(workspace.root))
