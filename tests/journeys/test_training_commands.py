"""``tenon train`` as a person types it: a quick start, the recipe it writes, a sweep, a merged base."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.models import Role, Tenant
from server.assembly import bases
from server.assembly.catalog import initialise, open_catalog, signer
from server.workspace import Workspace
from tests.journeys.commands import Done, tenon
from tests.support.remote import Remote, remote
from tests.support.tiny_model import conversation, write_jsonl, write_tiny_base


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A tenant, the tiny base and a file of rows."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "tiny").mkdir()
    write_tiny_base(folder / "tiny")
    made = initialise(folder / "workspace")
    catalog = open_catalog(made)
    catalog.create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="test")
    bases.register(made, catalog, name="tiny", source=str(folder / "tiny"), revision=None, actor="test")
    write_jsonl(folder / "rows.jsonl", [conversation(number) for number in range(24)])
    return made


def quick(workspace: Workspace, *more: str, environment: Mapping[str, str] | None = None) -> Done:
    data = workspace.root.parent / "rows.jsonl"
    return tenon(
        "train", "sft", "--tenant", "bank_a", "--data", str(data), "-o", "sft.steps=2",
        "-o", "sft.batch_size=4", "-o", "sft.max_length=120", "-o", "evaluation.max_new_tokens=4",
        "-w", str(workspace.root), *more, environment=environment,
    )  # fmt: skip


def test_a_quick_start_writes_a_recipe_that_plans_the_same(workspace: Workspace) -> None:
    saved = workspace.root.parent / "mine.yaml"
    done = quick(workspace, "--plan", "--save", str(saved))
    assert done.code == 0, done.err
    for words in ("memory (estimated)", "activations", "together"):
        assert words in done.err
    plan = json.loads(done.out)
    learned, held_out = (ref["rows"] for ref in plan["data"])
    assert (learned + held_out, 0 < held_out < 6) == (24, True)  # about a tenth
    again = tenon("train", str(saved), "--plan", "--json", "-w", str(workspace.root))
    assert again.code == 0, again.err
    assert again.err == ""
    assert json.loads(again.out) == plan


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--devices", "3"), 1, "does not divide by 3 processes [scale_invalid]"),
        (("--sweep", "lora.rank"), 1, "names no values [sweep_invalid]"),
        (("--sweep", "lora.rank=4,x"), 1, "lora.rank: must be a whole number"),
        (("--sweep", "lora.rank=4,8", "--push-best", "words"), 1, "no variant is best by words"),
        (("--push-best", "exact"), 2, "--push-best chooses among the variants of a --sweep"),
        (("--track", "excel"), 2, "excel"),
        (("--snapshot-every", "-5"), 2, "should be greater than or equal to 0"),
        (
            ("--column", "prompt", "--column", "=x"),
            1,
            "write yours=ours, such as question=prompt, not 'prompt'",
        ),
        (("--column", "a=prompt", "--column", "a="), 1, "--column: a is named twice"),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is(
    workspace: Workspace, more: tuple[str, ...], code: int, words: str
) -> None:
    before = sorted(workspace.runs.iterdir())
    done = quick(workspace, *more)
    assert done.code == code, done.err
    assert words in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert sorted(workspace.runs.iterdir()) == before


def test_a_quick_start_drops_a_column_as_an_audit_does(workspace: Workspace) -> None:
    folder = workspace.root.parent
    rows = [{**conversation(number), "asked_by": "me"} for number in range(24)]
    data = write_jsonl(folder / "asked.jsonl", rows)
    said = ("--data", str(data), "--plan")
    refused = quick(workspace, *said)
    assert refused.code == 1
    assert "asked_by" in refused.err
    assert quick(workspace, *said, "--column", "asked_by=").code == 0
    assert tenon("data", "audit", str(data)).code == 1
    assert tenon("data", "audit", str(data), "--column", "asked_by=").code == 0


def test_options_of_a_quick_start_are_refused_beside_a_recipe(workspace: Workspace) -> None:
    folder = workspace.root.parent
    recipe = folder / "other.yaml"
    assert quick(workspace, "--plan", "--save", str(recipe)).code == 0
    unwritten = folder / "x.yaml"
    done = tenon(
        "train", str(recipe), "--tenant", "foo", "--data", "zzz", "--save", str(unwritten), "--plan",
        "-w", str(workspace.root),
    )  # fmt: skip
    assert done.code == 2
    said = " ".join(done.err.replace("│", " ").split())
    assert "a recipe says what --tenant, --data, --save would" in said
    assert not unwritten.exists()
    assert tenon("train", str(recipe), "--adapter", "x", "--plan", "-w", str(workspace.root)).code == 2
    assert tenon("train", str(recipe), "--plan", "-w", str(workspace.root)).code == 0


def served(workspace: Workspace, folder: Path) -> "AbstractContextManager[Remote]":
    """A registry elsewhere that knows the workspace's base, and not yet its trainer."""
    _, base, contract = open_catalog(workspace).base("tiny")
    return remote(folder, bases=[(base, contract)])


def test_a_registry_that_would_take_no_report_is_told_before_anything_is_trained(
    workspace: Workspace, tmp_path: Path
) -> None:
    before = sorted(workspace.runs.iterdir())
    with served(workspace, tmp_path / "registry") as found:
        _, secret = found.world.catalog.issue_key("bank_a", role=Role.TRAINER, actor="test")
        (tmp_path / "key").write_text(secret)
        config = {"TENON_WORKSPACE": found.url, "TENON_KEY_FILE": str(tmp_path / "key")}
        done = quick(workspace, "--registry", found.url, environment=config)
    assert (done.code, "[signer_invalid]" in done.err) == (1, True), done.err
    assert "tenon signer trust" in done.err
    assert sorted(workspace.runs.iterdir()) == before


@pytest.mark.slow
def test_a_training_is_pushed_to_a_registry_elsewhere(workspace: Workspace, tmp_path: Path) -> None:
    with served(workspace, tmp_path / "registry") as found:
        catalog = found.world.catalog
        catalog.trust(signer(workspace, "trainer").public, actor="test")
        _, secret = catalog.issue_key("bank_a", role=Role.TRAINER, actor="test")
        (tmp_path / "key").write_text(secret)
        config = {"TENON_WORKSPACE": found.url, "TENON_KEY_FILE": str(tmp_path / "key")}
        done = quick(workspace, "-o", "seed=5", "--registry", found.url, "--json", environment=config)
        assert done.code == 0, done.err
        version = Digest(json.loads(done.out)["version"])
        assert catalog.version(version).state == "evaluated"
        assert len(catalog.signatures(version)) == 1
        assert catalog.manifest(version).provenance.method == "sft"
        assert catalog.manifest(version).fingerprint is not None


@pytest.mark.slow
def test_the_best_of_a_sweep_is_pushed_and_merged_into_a_base(workspace: Workspace) -> None:
    done = quick(
        workspace, "--sweep", "lora.rank=2,4", "--sweep", "seed=1", "--push-best", "valid_json", "--json"
    )
    assert done.code == 0, done.err
    for words in ("lora.rank=2 seed=1", "lora.rank=4 seed=1", "Best by valid_json", "95 % interval"):
        assert words in done.err
    said = json.loads(done.out)
    assert len(said["runs"]) == 2
    report = Path(said["report"])
    assert report.is_file()
    sweep = json.loads(report.with_name("sweep.json").read_text())
    ranks = [one["trained_parameters"] for one in sweep["variants"]]
    assert ranks[1] == 2 * ranks[0]
    listed = json.loads(tenon("adapter", "list", "bank_a", "--json", "-w", str(workspace.root)).out)
    assert [row["version"] for row in listed] == [said["version"]]  # one of them, not both

    out = workspace.root.parent / "merged"
    merged = tenon(
        "adapter", "merge", f"bank_a/assistant@{said['version']}", str(out), "-w", str(workspace.root)
    )
    assert merged.code == 0, merged.err
    # Elsewhere: with two bases here, the other tests would have to name theirs.
    other = initialise(workspace.root.parent / "other")
    added = tenon("base", "add", "merged", str(out), "-w", str(other.root))
    assert added.code == 0, added.err
    assert open_catalog(other).base("merged")[1].modules == open_catalog(workspace).base("tiny")[1].modules
