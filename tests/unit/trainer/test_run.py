"""From a recipe to a published version: what is pinned, what is reused, and what refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from registry.errors import AdapterBaseMismatch, AdapterZeroEffect, BaseNotFound
from registry.evidence import Metric
from registry.models import Base
from registry.names import AdapterName
from tests.support.registries import signer
from tests.support.tiny_model import RECIPE, case, conversation, write_jsonl, write_recipe
from trainer import folder as layout
from trainer.alarms import alarms_in
from trainer.datasets.audit import Audit
from trainer.errors import (
    BaseDiffers,
    ContractBroken,
    DataInvalid,
    DataLeak,
    RunBusy,
    RunChanged,
    RunNotFinished,
)
from trainer.events import Event, Note, StageAdvanced, StageFinished, StageStarted, ignore
from trainer.folder import RunFolder
from trainer.learning.job import Job, Learned
from trainer.learning.methods import LEARN
from trainer.plan import Plan, Planned, make_plan
from trainer.publish import publish
from trainer.recipes import load_recipe
from trainer.run import STAGES, train
from trainer.testing import InMemoryCatalog
from trainer.trained import TrainedRun, load_run


def plan(catalog: InMemoryCatalog, base_folder: Path, folder: Path, *overrides: str) -> Planned:
    recipe = folder / "recipe.yaml"
    if not recipe.exists():
        write_recipe(folder)
    return make_plan(load_recipe(recipe, overrides=overrides), catalog=catalog, base_folder=base_folder)


@pytest.fixture
def run(catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path, finished: Path) -> tuple[Planned, Path]:
    """A plan and a private copy of its finished run."""
    shutil.copytree(finished, tmp_path / "run")
    return plan(catalog, base_folder, tmp_path / "recipe"), tmp_path / "run"


@pytest.fixture(scope="session")
def finished(base_folder: Path, base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real run on the tiny base."""
    from trainer.learning.contract import make_contract

    place = tmp_path_factory.mktemp("finished")
    memory = InMemoryCatalog(tenants=frozenset({"bank_a"}))
    memory.register_base(base, make_contract(base.identity(), base_folder))
    planned = plan(memory, base_folder, place / "recipe")
    train(planned, base_folder=base_folder, run_folder=place / "run", sink=ignore)
    return place / "run"


# Planning


def test_a_plan_pins_everything_and_no_place(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    first = plan(catalog, base_folder, tmp_path / "here").plan
    second = plan(catalog, base_folder, tmp_path / "elsewhere").plan
    assert first.identity() == second.identity()
    assert Plan.parse(first.canonical()) == first
    assert str(tmp_path).encode() not in first.canonical()
    assert [ref.rows for ref in first.data] == [24, 7]
    assert first.suite == Digest.of_file(tmp_path / "here" / "cases.jsonl")
    assert first.environment["trl"] == "1.16.0"
    assert first.provenance().plan == first.identity()
    assert first.gate.rules[0].metric == "policy"


@pytest.mark.parametrize(
    "change",
    [
        "seed=8",
        "sft.steps=7",
        "lora.rank=8",
        "evaluation.max_new_tokens=9",
        "gate.rules=[{metric: policy, at_least: 1}]",
    ],
)
def test_whatever_is_decided_differently_is_another_plan(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path, change: str
) -> None:
    assert (
        plan(catalog, base_folder, tmp_path, change).plan.identity()
        != plan(catalog, base_folder, tmp_path).plan.identity()
    )


def test_other_data_or_another_schema_is_another_plan(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    seen = {plan(catalog, base_folder, tmp_path).plan.identity()}
    write_jsonl(tmp_path / "train.jsonl", [conversation(number) for number in range(25)])
    seen.add(plan(catalog, base_folder, tmp_path).plan.identity())
    write_jsonl(tmp_path / "cases.jsonl", [case(1)])
    seen.add(plan(catalog, base_folder, tmp_path).plan.identity())
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    seen.add(plan(catalog, base_folder, tmp_path).plan.identity())
    assert len(seen) == 4


def test_a_folder_that_is_not_the_registered_base_is_refused(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(base_folder, tmp_path / "base")
    template = tmp_path / "base" / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    with pytest.raises(BaseDiffers, match="tiny: chat_template differ"):
        plan(catalog, tmp_path / "base", tmp_path / "recipe")


def test_an_unknown_base_is_refused(catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseNotFound):
        plan(catalog, base_folder, tmp_path, "base=other")


def test_a_question_in_both_files_is_refused(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    write_recipe(tmp_path)
    leaked = {**case(3), "messages": conversation(3)["messages"][:1]}
    write_jsonl(tmp_path / "cases.jsonl", [case(1), leaked])
    with pytest.raises(DataLeak, match=r"cases\.jsonl:2: the same question stands in train\.jsonl:4"):
        plan(catalog, base_folder, tmp_path)


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ("[1]", "must be a JSON Schema object"),
        ("{", "not valid JSON"),
        ('{"type": 5}', "not a JSON Schema"),
        (None, "No such file"),
    ],
)
def test_a_bad_schema_file_is_refused(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path, schema: str | None, what: str
) -> None:
    write_recipe(tmp_path)
    (tmp_path / "schema.json").unlink()
    if schema is not None:
        (tmp_path / "schema.json").write_text(schema)
    with pytest.raises(DataInvalid, match=what):
        plan(catalog, base_folder, tmp_path)


# Running


def test_a_run_holds_everything_a_person_or_a_gate_asks_for(run: tuple[Planned, Path]) -> None:
    planned, place = run
    found = load_run(place)
    assert found.plan == planned.plan
    assert found.name == AdapterName("bank_a", "assistant")
    assert set(found.metrics) == set(found.baseline) == {
        "valid_json", "schema_valid", "copied", "policy", "words", "kl",
    }  # fmt: skip
    assert found.metrics["policy"].n == 7
    assert set(found.seconds) == set(STAGES)
    assert found.fingerprint.base == planned.plan.base
    assert {probe.kind for probe in found.fingerprint.probes} == {"random", "tenant"}
    steps = [json.loads(line) for line in (place / layout.METRICS).read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert json.loads((place / layout.PROOF).read_text())["rows"] == 24
    samples = json.loads((place / layout.SAMPLES).read_text())
    assert [sample["id"] for sample in samples] == [f"case-{number}" for number in range(7)]
    assert set(json.loads((place / layout.EVALUATION).read_text())["by_tag"]) == {"odd", "even"}
    assert not (place / layout.RAW).exists()
    assert sorted(path.name for path in found.adapter.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip


def test_a_finished_run_of_an_equal_plan_is_reused(
    run: tuple[Planned, Path], base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, place = run
    monkeypatch.setitem(LEARN, "sft", _must_not_run)
    events: list[Event] = []
    found = train(planned, base_folder=base_folder, run_folder=place, sink=events.append)
    assert found.reused
    assert [(event.stage, event.reused) for event in events if isinstance(event, StageFinished)] == [
        (stage, True) for stage in STAGES
    ]
    assert len(events) == len(STAGES)


def test_after_a_crash_only_what_is_missing_is_computed(
    run: tuple[Planned, Path], base_folder: Path, catalog: InMemoryCatalog, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    planned, _ = run
    place = tmp_path / "crashing"

    def crash(*args: object, **named: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("trainer.learning.fingerprint.make_fingerprint", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(planned, base_folder=base_folder, run_folder=place, sink=ignore)
    with pytest.raises(RunNotFinished):
        load_run(place)
    monkeypatch.setitem(LEARN, "sft", _must_not_run)
    events: list[Event] = []
    found = train(planned, base_folder=base_folder, run_folder=place, sink=events.append)
    assert not found.reused
    assert [event.stage for event in events if isinstance(event, StageStarted)] == ["fingerprint"]
    assert found.adapter_active in (True, False)
    # The same training again, in another folder: the same adapter and fingerprint.
    first = load_run(tmp_path / "run")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (found.adapter / name).read_bytes() == (first.adapter / name).read_bytes()
    assert found.fingerprint == first.fingerprint


def _must_not_run(job: Job[Any, Any]) -> Learned:
    raise AssertionError("this stage should have been reused")


def test_stages_report_their_progress_and_time(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    write_recipe(tmp_path, RECIPE.replace("steps: 6", "steps: 2"))
    rows = [conversation(number % 20) for number in range(22)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    clock = iter(range(100))
    events: list[Event] = []
    train(
        plan(catalog, base_folder, tmp_path), base_folder=base_folder, run_folder=tmp_path / "run",
        sink=events.append, timer=lambda: float(next(clock)),
    )  # fmt: skip
    steps = [event for event in events if isinstance(event, StageAdvanced) and event.stage == "learn"]
    assert [(event.done, event.total) for event in steps] == [(1, 2), (2, 2)]
    assert steps[0].metrics["loss"] > 0
    asked = [event for event in events if isinstance(event, StageAdvanced) and event.stage == "evaluate"]
    assert (asked[-1].done, asked[-1].total) == (14, 14)
    assert [event for event in events if isinstance(event, StageFinished)] == [
        StageFinished(stage, 1.0) for stage in STAGES
    ]
    (note,) = [event for event in events if isinstance(event, Note) and event.stage == "check"]
    assert note.text == "train.jsonl: 2 of its rows say what an earlier row says, first line 21"


def test_another_plan_or_fresh_computes_again(
    run: tuple[Planned, Path], base_folder: Path, monkeypatch: pytest.MonkeyPatch, catalog: InMemoryCatalog,
    tmp_path: Path,
) -> None:  # fmt: skip
    planned, place = run
    (place / "notes.txt").write_text("a person's own")
    monkeypatch.setitem(LEARN, "sft", _must_not_run)
    with pytest.raises(AssertionError):
        train(planned, base_folder=base_folder, run_folder=place, sink=ignore, fresh=True)
    assert (place / "notes.txt").exists()
    with pytest.raises(RunNotFinished):
        load_run(place)
    other = plan(catalog, base_folder, tmp_path / "recipe", "seed=9")
    with pytest.raises(AssertionError):
        train(other, base_folder=base_folder, run_folder=tmp_path / "run", sink=ignore)


def test_a_changed_file_is_noticed_and_its_run_is_not_reused(
    run: tuple[Planned, Path], base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, place = run
    weights = place / layout.ADAPTER / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RunChanged):
        load_run(place)
    monkeypatch.setitem(LEARN, "sft", _must_not_run)
    with pytest.raises(AssertionError):
        train(planned, base_folder=base_folder, run_folder=place, sink=ignore)


def test_two_trainings_in_one_folder_are_refused(run: tuple[Planned, Path], base_folder: Path) -> None:
    planned, place = run
    with RunFolder(place).locked(), pytest.raises(RunBusy):
        train(planned, base_folder=base_folder, run_folder=place, sink=ignore)
    train(planned, base_folder=base_folder, run_folder=place, sink=ignore)


def test_a_contract_that_no_longer_holds_stops_before_training(
    catalog: InMemoryCatalog, base: Base, base_folder: Path, tmp_path: Path
) -> None:
    _, _, contract = catalog.base("tiny")
    golden = contract.golden[3].model_copy(update={"token_ids": (1, 2, 3)})
    other = contract.model_copy(update={"golden": (*contract.golden[:3], golden)})
    catalog.register_base(base, other)
    with pytest.raises(ContractBroken, match="golden conversation 3"):
        train(
            plan(catalog, base_folder, tmp_path),
            base_folder=base_folder,
            run_folder=tmp_path / "r",
            sink=ignore,
        )


def test_a_base_that_is_replaced_during_the_run_spoils_it(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It happened: trained on the old files, measured on the new ones, and everything looked finished."""
    from trainer import run as module

    shutil.copytree(base_folder, tmp_path / "base")
    planned = plan(catalog, tmp_path / "base", tmp_path / "recipe")
    evaluate = vars(module)["evaluate"]

    def replaced(*args: Any, **rest: Any) -> Any:
        weights = tmp_path / "base" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-2] + b"\x00\x3f")
        return evaluate(*args, **rest)

    monkeypatch.setattr(module, "evaluate", replaced)
    with pytest.raises(BaseDiffers, match="weights differ"):
        train(planned, base_folder=tmp_path / "base", run_folder=tmp_path / "run", sink=ignore)
    assert not (tmp_path / "run" / "stages").exists()
    with pytest.raises(RunNotFinished):
        load_run(tmp_path / "run")
    # And a run that was planned before the files changed does not start.
    monkeypatch.setitem(LEARN, "sft", _must_not_run)
    with pytest.raises(BaseDiffers):
        train(planned, base_folder=tmp_path / "base", run_folder=tmp_path / "run", sink=ignore)


# Publishing


def test_publishing_pushes_and_files_a_signed_report(
    run: tuple[Planned, Path], catalog: InMemoryCatalog
) -> None:
    # The tiny base and its adapter both fail at everything: figures that differ show which one goes where.
    figure = Metric(value=1.0, n=7, stderr=0.0)
    found = replace(load_run(run[1]), metrics={"policy": figure}, adapter_active=True)
    published = publish(found, catalog=catalog, signer=signer("trainer"), actor="test")
    manifest = catalog.manifests[published.version]
    assert (manifest.tenant, manifest.adapter) == ("bank_a", "assistant")
    assert manifest.provenance.plan == found.plan.identity()
    assert manifest.provenance.method == "sft"
    assert manifest.fingerprint is not None
    assert manifest.fingerprint.digest == found.fingerprint.identity()
    report = catalog.reports[published.report]
    assert report.version == published.version
    assert report.suite == found.plan.suite
    assert report.metrics == found.metrics
    assert report.baseline == found.baseline != report.metrics
    assert report.adapter_active
    assert publish(found, catalog=catalog, signer=signer("trainer"), actor="test") == published


def test_an_adapter_of_another_base_is_not_let_in(
    run: tuple[Planned, Path], catalog: InMemoryCatalog, base: Base
) -> None:
    found: TrainedRun = load_run(run[1])
    _, _, contract = catalog.base("tiny")
    sibling = base.model_copy(update={"weights": Digest.of(b"other weights of the same shape")})
    digest = catalog.register_base(sibling, contract)
    with pytest.raises(AdapterBaseMismatch):
        catalog.push(
            found.name,
            found.adapter,
            base=digest,
            fingerprint=None,
            provenance=found.plan.provenance(),
            actor="t",
        )


def test_a_run_keeps_the_audit_of_its_data(run: tuple[Planned, Path]) -> None:
    planned, place = run
    found = Audit.parse((place / layout.AUDIT).read_bytes())
    assert found.train is not None
    assert found.train.digest == planned.dataset.digest
    assert RunFolder(place).done().files[layout.AUDIT] == found.identity()


SILENT = """\
kind: tenon.recipe/v1
tenant: bank_a
adapter: assistant
base: tiny
method: grpo
data: {train: cases.jsonl, evaluation: held_out.jsonl}
rewards: [{verifier: valid_json}]
grpo:
  {preset: dr_grpo, steps: 3, batch_size: 4, group_size: 2, kl: 0.0, max_length: 100,
   sampling: {max_new_tokens: 4}}
evaluation: {max_new_tokens: 4}
gate: {rules: [{metric: valid_json, at_least: 0.9}]}
"""


def test_a_run_whose_rewards_taught_nothing_says_so_and_what_to_do(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    """No noise is JSON: all rewards are 0, and no weight ever moves."""
    recipe = write_recipe(tmp_path / "recipe", SILENT)
    held_out = [{**case(number), "id": f"held-{number}"} for number in range(50, 53)]
    write_jsonl(tmp_path / "recipe" / "held_out.jsonl", held_out)
    planned = make_plan(load_recipe(recipe), catalog=catalog, base_folder=base_folder)
    with pytest.raises(AdapterZeroEffect, match="grpo learned nothing") as caught:
        train(planned, base_folder=base_folder, run_folder=tmp_path / "run", sink=ignore)
    (alarm,) = alarms_in(json.loads((tmp_path / "run" / layout.PROOF).read_text()))
    assert alarm.name == "zero_variance"
    assert str(alarm) in caught.value.message
    for cure in ("easier questions", "pass rate", "finer reward", "sft"):
        assert cure in caught.value.advice
