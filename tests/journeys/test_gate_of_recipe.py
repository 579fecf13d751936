"""``tenon promote`` asks what the version's own recipe asked, and nothing else that lies in a run folder."""

from pathlib import Path

from registry.digests import Digest
from registry.evidence import GatePolicy, Rule
from registry.manifests import DataRef, Provenance
from server.assembly.training import gate_of
from tests.journeys.conftest import prepare
from trainer.plan import Plan, PlannedEvaluation
from trainer.recipes import LoraSettings, SftSettings

GATE = GatePolicy(name="assistant", rules=(Rule(metric="copied", at_least=0.5),))


def test_the_recipes_gate_is_found_by_the_plan_and_only_if_it_is_that_plan(tmp_path: Path) -> None:
    served = prepare(tmp_path)
    uploaded = served.catalog.manifest(served.versions["bank_a"])
    assert gate_of(served.workspace, uploaded) is None

    plan = Plan(
        tenant="bank_a",
        adapter="assistant",
        method="sft",
        seed=1,
        base=uploaded.base,
        base_name="demo",
        recipe=Digest.of(b"recipe"),
        data=(DataRef(role="evaluation", digest=Digest.of(b"cases"), rows=1),),
        lora=LoraSettings(),
        settings=SftSettings(steps=10),
        inputs={},
        parent=None,
        evaluation=PlannedEvaluation(max_new_tokens=8, batch_size=1, answer_schema=None),
        gate=GATE,
        environment={},
    )
    trained = uploaded.model_copy(update={"provenance": Provenance(method="sft", plan=plan.identity())})
    assert gate_of(served.workspace, trained) is None  # its run is elsewhere

    file = served.workspace.runs / plan.identity().hex[:16] / "plan.json"
    file.parent.mkdir()
    file.write_bytes(plan.canonical())
    assert gate_of(served.workspace, trained) == GATE

    softer = plan.model_copy(update={"gate": GatePolicy(rules=(Rule(metric="copied", at_least=0),))})
    file.write_bytes(softer.canonical())
    assert gate_of(served.workspace, trained) is None
