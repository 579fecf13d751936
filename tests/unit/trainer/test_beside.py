"""A student beside its teacher, on the same cases."""

import json
from pathlib import Path

import pytest

from registry.digests import Digest
from tests.support.endpoint_server import refusal, said, serving
from tests.support.tiny_model import RECIPE, write_recipe
from trainer.errors import EndpointRefused, RecipeInvalid
from trainer.evaluation.beside import compare_beside
from trainer.evaluation.scorers import Scores
from trainer.events import ignore
from trainer.inputs import Inputs, ModelInput
from trainer.plan import make_plan
from trainer.recipes import load_recipe
from trainer.run import train
from trainer.testing import InMemoryCatalog
from trainer.trained import load_run

GKD = RECIPE.replace("method: sft", "method: gkd\nteacher: {base: tiny}").replace("sft: {", "gkd: {")


def test_the_difference_is_paired() -> None:
    """Both are right in half of the cases, but in others: the error says how little that proves."""
    own: list[Scores] = [
        {"policy": True, "words": 2.0},
        {"policy": False},
        {"policy": True},
        {"policy": False},
    ]
    taught: list[Scores] = [
        {"policy": True, "words": 3.0},
        {"policy": True},
        {"policy": False},
        {"policy": False},
    ]
    found = compare_beside(["a", "b", "c", "d"], own, ["a", "x", "c", "y"], taught)
    assert found.equal == 0.5
    assert found.metrics["policy"].value == 0.5
    difference = found.difference["policy"]
    assert (difference.value, difference.n) == (0.0, 4)
    assert difference.stderr == pytest.approx((0.5 / 4) ** 0.5)
    assert (found.difference["words"].value, found.difference["words"].n) == (-1.0, 1)


def test_a_run_reports_the_student_beside_its_teacher(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    digest = catalog.base("tiny")[0]
    recipe = write_recipe(tmp_path / "recipe", GKD)
    inputs = Inputs({"teacher": ModelInput(digest, digest, base_folder)})
    planned = make_plan(load_recipe(recipe), catalog=catalog, base_folder=base_folder, inputs=inputs)
    assert planned.plan.provenance().teacher == digest
    run = train(planned, base_folder=base_folder, run_folder=tmp_path / "run", sink=ignore)
    # The teacher is the bare base, so what it reaches is what the base reaches.
    beside = run.beside["teacher"]
    assert beside.metrics == {name: run.baseline[name] for name in beside.metrics}
    assert "policy" in beside.metrics
    for name, difference in beside.difference.items():
        assert difference.value == pytest.approx(run.metrics[name].value - run.baseline[name].value)
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert figures["beside"]["teacher"]["equal"] == pytest.approx(1 - figures["differing"])
    samples = json.loads((tmp_path / "run" / "samples.json").read_text())
    assert all(sample["teacher"]["text"] == sample["base"]["text"] for sample in samples)
    assert load_run(tmp_path / "run").beside == run.beside


def test_a_run_is_measured_beside_the_versions_before_it(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    """The same plan twice is the same behaviour: nothing tells the second apart, and that is said."""
    planned = make_plan(
        load_recipe(write_recipe(tmp_path / "recipe")), catalog=catalog, base_folder=base_folder
    )
    one = train(planned, base_folder=base_folder, run_folder=tmp_path / "one", sink=ignore)
    assert one.fingerprint.alike == {}
    before = {Digest.of(b"before"): one.fingerprint}
    two = train(
        planned, base_folder=base_folder, run_folder=tmp_path / "two", sink=ignore, siblings=lambda: before
    )
    assert set(two.fingerprint.alike) == set(two.fingerprint.noise) != set()
    assert set(two.fingerprint.alike.values()) == {(Digest.of(b"before"),)}


def test_an_endpoint_that_fails_while_measured_costs_no_training(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    with serving(lambda body, number: said('{"amount":"1.50"}')) as server:
        given = f"""\
method: black_box
teacher: {{endpoint: {{url: '{server.url}', model: m, concurrency: 1}}}}
rewards: [{{verifier: valid_json}}]"""
        text = RECIPE.replace("method: sft", given).replace("sft: {", "black_box: {least: 4, ")
        recipe = write_recipe(tmp_path / "recipe", text)
        (tmp_path / "recipe" / "train.jsonl").write_text(
            "".join(f'{{"prompt":"Settle {number}"}}\n' for number in range(8))
        )
        planned = make_plan(
            load_recipe(recipe),
            catalog=catalog,
            base_folder=base_folder,
            inputs=Inputs(endpoint_key={f"{server.url}": "secret"}.get),
        )
        assert "secret" not in planned.plan.canonical().decode()
        answer = server.reply
        server.reply = lambda body, number: answer(body, number) if number <= 11 else refusal(401)
        with pytest.raises(EndpointRefused):
            train(planned, base_folder=base_folder, run_folder=tmp_path / "run", sink=ignore)
        assert len(server.seen) == 12  # eight to learn from, four of the seven cases
        server.reply = answer
        run = train(planned, base_folder=base_folder, run_folder=tmp_path / "run", sink=ignore)
        assert len(server.seen) == 16
    assert all(headers["authorization"] == "Bearer secret" for _, headers, _ in server.seen)
    assert run.beside["teacher"].metrics["valid_json"].value == 1.0
    pinned = json.loads((run.folder / "proof.json").read_text())["answers"]
    assert pinned["count"] == 8
    assert pinned["digest"].startswith("sha256:")
    assert run.plan.provenance().teacher is None  # an endpoint has no digest: the recipe's names it


@pytest.mark.parametrize("method", ["gkd", "distill", "gold"])
def test_white_box_methods_refuse_an_endpoint(tmp_path: Path, method: str) -> None:
    text = RECIPE.replace(
        "method: sft", f"method: {method}\nteacher: {{endpoint: {{url: 'http://x/v1', model: m}}}}"
    ).replace("sft: {", f"{method}: {{")
    with pytest.raises(RecipeInvalid, match="an endpoint needs black_box"):
        load_recipe(write_recipe(tmp_path, text))


def test_digests_of_teachers_are_a_part_of_the_plan(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(write_recipe(tmp_path, GKD))
    plans = [
        make_plan(
            recipe, catalog=catalog, base_folder=base_folder,
            inputs=Inputs({"teacher": ModelInput(Digest.of(name), Digest.of(name), base_folder)}),
        ).plan.identity()
        for name in (b"one", b"other")
    ]  # fmt: skip
    assert plans[0] != plans[1]
