"""Judging answers, and figures that say how much they prove."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.names import AdapterName
from registry.signing.envelope import verify
from registry.signing.types import REPORT
from tests.support.registries import signer
from trainer.datasets import Case, Dataset, Message
from trainer.evaluation import scorers
from trainer.evaluation.compare import compare, judge, metric
from trainer.evaluation.report import make_report, sign_report
from trainer.evaluation.run import evaluate
from trainer.evaluation.suite import Suite
from trainer.events import Event, StageAdvanced
from trainer.recipes.sources import RewardSettings
from trainer.rewards import Resources, build

SCHEMA = {
    "type": "object",
    "required": ["amount"],
    "additionalProperties": False,
    "properties": {"amount": {}},
}


def a_case(number: int = 1, *, tags: tuple[str, ...] = ()) -> Case:
    return Case(
        id=f"case-{number}",
        prompt=(Message("user", f"Pay {number}"),),
        facts={"amount": str(number)},
        expect={"properties": {"amount": {"pattern": "^[0-9]+$"}}, "required": ["amount"], "type": "object"},
        tags=tags,
        line=number,
    )


def scores(case: Case, text: str) -> dict[str, bool | float]:
    return scorers.scorer(SCHEMA)([case], [text])[0]


@pytest.mark.parametrize("text", ['{"a":1}', "[]", "null", '"x"', " {} \n"])
def test_json_is_valid_json(text: str) -> None:
    assert scores(a_case(), text)["valid_json"] is True


@pytest.mark.parametrize(
    "text", ["", '{"a":1', '{"a":1} and more', '{"a":1,"a":2}', "NaN", "```json\n{}\n```"]
)
def test_what_only_looks_like_json_is_not_and_satisfies_nothing(text: str) -> None:
    anything = Case("id", (Message("user", "?"),), 1, facts={"a": "1"}, expect={})
    found = scorers.scorer({})([anything], [text])[0]
    assert [found[name] for name in ("valid_json", "schema_valid", "policy", "copied")] == [False] * 4


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('{"payee":"Norvik Ltd","amount":"840.50","more":1}', True),
        ('{"payee":"Norvik Ltd","amount":"840.5"}', False),
        ('{"payee":"Norvik Ltd","amount":840.50}', False),
        ('{"amount":"840.50"}', False),
        ('["840.50","Norvik Ltd"]', False),
    ],
)
def test_facts_must_be_equal_character_by_character(text: str, same: bool) -> None:
    facts = {"amount": "840.50", "payee": "Norvik Ltd"}
    assert scores(Case("id", (Message("user", "?"),), 1, facts=facts), text)["copied"] is same


def test_schema_and_policy_are_two_questions() -> None:
    assert scores(a_case(), '{"amount":"1","extra":2}')["schema_valid"] is False
    (score,) = scorers.scorer(SCHEMA)([a_case()], ['{"amount":"x"}'])
    assert score == {
        "valid_json": True, "schema_valid": True, "copied": False, "policy": False, "words": 1.0,
    }  # fmt: skip


def test_a_metric_that_does_not_apply_is_absent() -> None:
    case = Case("id", (Message("user", "?"),), 1)
    assert scorers.scorer(None)([case], ["{}"]) == [{"valid_json": True, "words": 1.0}]


def test_a_known_answer_is_compared_and_verifiers_are_measured_beside() -> None:
    limit = build([(RewardSettings(verifier="word_limit", settings={"limit": 2}), Resources())])
    case = Case("id", (Message("user", "?"),), 1, answer="two words")
    found = scorers.scorer(None, limit)([case, case], ["two words ", "these are three"])
    assert [one["exact"] for one in found] == [True, False]
    assert [one["verifier.word_limit"] for one in found] == [1.0, 0.0]
    assert [one["verified"] for one in found] == [True, False]
    assert [one["words"] for one in found] == [2.0, 3.0]


def test_the_standard_error_is_the_binomial_one() -> None:
    assert metric([True] * 48 + [False] * 48).stderr == pytest.approx(0.05103, abs=1e-5)
    assert metric([True] * 96).stderr == 0.0
    assert metric([1.0, 3.0]).stderr == pytest.approx(1 / math.sqrt(2))


def test_comparison_counts_each_side_and_each_tag() -> None:
    cases = [a_case(1, tags=("x",)), a_case(2, tags=("x", "y")), a_case(3)]
    before = ["no", '{"amount":"2"}', "no"]
    after = ['{"amount":"1"}', '{"amount":"2"}', '{"amount":"4"}']
    found = compare(judge(cases, before, after, scorers.scorer(None)))
    assert found.baseline["copied"].value == pytest.approx(1 / 3)
    assert found.metrics["copied"].value == pytest.approx(2 / 3)
    assert found.metrics["policy"].value == 1.0
    assert found.metrics["policy"].n == 3
    assert found.differing == pytest.approx(2 / 3)
    assert found.adapter_active
    assert found.by_tag["x"]["base"]["policy"].n == 2
    assert found.by_tag["y"]["adapter"]["copied"].value == 1.0
    assert set(found.by_tag) == {"x", "y"}


def test_an_adapter_that_changes_no_answer_is_not_active() -> None:
    found = compare(judge([a_case()], ["same"], ["same"], scorers.scorer(None)))
    assert found.differing == 0.0
    assert not found.adapter_active


def test_answers_must_match_the_cases_in_number() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        judge([a_case()], [], ["x"], scorers.scorer(None))
    with pytest.raises(ValueError, match="no cases"):
        compare([])


class Scripted:
    """A model that says ``base`` or the amount."""

    def answers(
        self,
        cases: Sequence[Case],
        *,
        adapter: bool,
        max_new_tokens: int,
        batch_size: int,
        advanced: Callable[[int], None],
    ) -> list[str]:
        advanced(len(cases))
        return [
            f'{{"amount":"{case.prompt[-1].content.split()[1]}"}}' if adapter else "base" for case in cases
        ]

    def divergences(self, cases: Sequence[Case], texts: Sequence[str]) -> list[float | None]:
        return [0.5, None]


def test_an_evaluation_asks_both_and_keeps_every_answer() -> None:
    suite: Suite = Dataset("cases.jsonl", Digest.of(b""), (a_case(1), a_case(2)))
    events: list[Event] = []
    found = evaluate(
        suite, schema=SCHEMA, base_folder=Path("b"), adapter_folder=Path("a"),
        sink=events.append, load=lambda base, adapter: Scripted(),
    )  # fmt: skip
    assert events == [StageAdvanced("evaluate", 2, 4), StageAdvanced("evaluate", 4, 4)]
    assert found.as_json()["metrics"]["policy"] == {"value": 1.0, "n": 2, "stderr": 0.0}
    assert found.as_json()["baseline"]["valid_json"]["value"] == 0.0
    assert found.as_json()["adapter_active"] is True
    assert found.as_json()["metrics"]["kl"] == {"value": 0.5, "n": 1, "stderr": 0.0}
    assert found.as_json()["baseline"]["kl"]["value"] == 0.0
    assert found.samples()[1] == {
        "id": "case-2",
        "messages": [{"role": "user", "content": "Pay 2"}],
        "tags": [],
        "base": {
            "text": "base",
            "scores": {
                "valid_json": False,
                "words": 1.0,
                "schema_valid": False,
                "copied": False,
                "policy": False,
            },
        },
        "adapter": {
            "text": '{"amount":"2"}',
            "scores": {
                "valid_json": True,
                "words": 1.0,
                "schema_valid": True,
                "copied": True,
                "policy": True,
            },
        },
    }


def test_a_report_is_signed_in_its_canonical_bytes() -> None:
    trainer = signer("trainer")
    report = make_report(
        AdapterName("bank_a", "assistant"),
        version=Digest.of(b"v"), base=Digest.of(b"b"), suite=Digest.of(b"s"),
        metrics={"policy": metric([True] * 9 + [False])},
        baseline={"policy": metric([False] * 9 + [True])}, adapter_active=True,
    )  # fmt: skip
    trusted = {trainer.public.id: trainer.public}
    body = verify(sign_report(report, trainer), payload_type=REPORT, trusted=trusted, role="trainer")
    assert body == report.canonical()
    assert math.isclose(report.metrics["policy"].stderr, math.sqrt(0.9 * 0.1 / 10))
