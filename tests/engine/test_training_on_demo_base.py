"""Real TRL training on the base that ships with the package, with the demo's hardest recipe.

retail_b decides by the amount, so its adapter must read a number and not only change a style. The other two
tenants are trained by the demo's own journey.
"""

import json
import shutil
from typing import Final

import pytest

from registry.bases import describe
from registry.fingerprint import EXACT_F32
from server.demo import corpus
from server.demo.build_base import SHIPPED_BASE
from tests.support.registries import signer
from trainer.events import ignore
from trainer.learning.contract import make_contract
from trainer.plan import Planned, make_plan
from trainer.publish import publish
from trainer.recipes import load_recipe
from trainer.run import train
from trainer.testing import InMemoryCatalog
from trainer.trained import TrainedRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TENANT: Final = "retail_b"
DEMO: Final = SHIPPED_BASE.parent


@pytest.fixture(scope="module")
def catalog() -> InMemoryCatalog:
    base = describe(SHIPPED_BASE, name="demo", revision="shipped")
    memory = InMemoryCatalog(tenants=frozenset({TENANT}))
    memory.register_base(base, make_contract(base.identity(), SHIPPED_BASE))
    return memory


@pytest.fixture(scope="module")
def planned(catalog: InMemoryCatalog, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    folder = tmp_path_factory.mktemp("recipe")
    corpus.write_jsonl(folder / "train.jsonl", corpus.tenant_rows(TENANT, 800, 11))
    corpus.write_jsonl(folder / "cases.jsonl", corpus.tenant_cases(TENANT, 96, 12))
    shutil.copyfile(DEMO / "recipes" / f"{TENANT}.yaml", folder / "recipe.yaml")
    shutil.copyfile(DEMO / "policies" / f"{TENANT}.json", folder / "schema.json")
    return make_plan(load_recipe(folder / "recipe.yaml"), catalog=catalog, base_folder=SHIPPED_BASE)


@pytest.fixture(scope="module")
def run(planned: Planned, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return train(planned, base_folder=SHIPPED_BASE, run_folder=tmp_path_factory.mktemp("run"), sink=ignore)


def test_the_adapter_follows_its_tenants_rule_and_the_base_does_not(run: TrainedRun) -> None:
    """n = 96: the standard error of 0.95 is 0.022, so 0.9 is two of them below what is usual."""
    assert run.baseline["policy"].value <= 0.1
    assert run.metrics["policy"].value >= 0.9
    assert run.metrics["schema_valid"].value >= 0.95
    # Learning a rule must not cost the ability to copy.
    assert run.metrics["copied"].value >= run.baseline["copied"].value - 0.05
    assert run.adapter_active


def test_both_branches_and_unseen_phrasings_hold(run: TrainedRun) -> None:
    by_tag = json.loads((run.folder / "evaluation.json").read_text())["by_tag"]
    for tag in ("branch:under_threshold", "branch:at_or_over_threshold", "phrasing:unseen", "phrasing:seen"):
        assert by_tag[tag]["adapter"]["policy"]["value"] >= 0.8, tag


def test_only_answers_were_learned(run: TrainedRun, planned: Planned) -> None:
    masks = json.loads((run.folder / "proof.json").read_text())
    assert masks["rows"] == len(planned.dataset.rows)
    first = planned.dataset.rows[0].messages
    answers = {row.messages[-1].content + "<|im_end|>" for row in planned.dataset.rows}
    assert masks["sample_answer"] in answers
    assert first[0].content not in masks["sample_answer"]


def test_the_adapter_is_recognisable(run: TrainedRun) -> None:
    assert run.fingerprint.distance_to_base > 1000 * EXACT_F32
    assert [probe.kind for probe in run.fingerprint.probes] == ["random"] * 8 + ["tenant"] * 8


def test_it_is_published_with_its_evidence(
    run: TrainedRun, catalog: InMemoryCatalog, planned: Planned
) -> None:
    published = publish(run, catalog=catalog, signer=signer("trainer"), actor="test")
    assert catalog.reports[published.report].version == published.version
    assert catalog.manifests[published.version].provenance.data == planned.plan.data


def test_an_equal_plan_is_not_trained_twice(
    run: TrainedRun, planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **rest: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("trainer.learning.sft.learn", refuse)
    assert train(planned, base_folder=SHIPPED_BASE, run_folder=run.folder, sink=ignore).reused
