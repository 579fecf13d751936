"""The demo corpus: same seed, same rows; nothing held out leaks into training; answers fit their schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import pytest

from registry.errors import TenonError
from server.demo import build_base, corpus
from server.demo.errors import BaseBelowQuality
from server.demo.phrasings import SEEN, UNSEEN

TENANTS = pytest.mark.parametrize("tenant", corpus.TENANTS)


def user_texts(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [m["content"] for row in rows for m in row["messages"] if m["role"] == "user"]


def final_answer(row: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(row["messages"][-1]["content"])
    return parsed


def test_the_same_seed_gives_the_same_rows() -> None:
    assert corpus.base_rows(200, 5) == corpus.base_rows(200, 5)
    assert corpus.corpus_digest(corpus.base_rows(50, 5)) != corpus.corpus_digest(corpus.base_rows(50, 6))


@TENANTS
def test_no_training_row_shows_a_held_out_vendor_or_case(tenant: corpus.Tenant) -> None:
    rows = corpus.tenant_rows(tenant, 400, 1) + corpus.base_rows(400, 1)
    text = corpus.to_jsonl(rows)
    cases = corpus.tenant_cases(tenant, 200, 1)
    assert not set(corpus.TRAINING_VENDORS) & set(corpus.HELD_OUT_VENDORS)
    assert not any(f"{case['facts']['payee']}" in text for case in cases)
    assert not set(user_texts(rows)) & set(user_texts(cases))


def test_unseen_phrasings_are_never_used_in_training() -> None:
    seen, unseen = SEEN, UNSEEN
    for intent in corpus.INTENTS:
        assert not set(seen.do[intent]) & set(unseen.do[intent])
        assert not set(seen.say[intent]) & set(unseen.say[intent])
    assert {o for o in seen.openers if o}.isdisjoint(unseen.openers)
    # Bare punctuation is in both: it is no phrasing.
    assert {e for e in seen.enders if len(e) > 1}.isdisjoint(unseen.enders)


@TENANTS
def test_every_answer_fits_the_policy_schema_and_the_expectation(tenant: corpus.Tenant) -> None:
    schema = jsonschema.Draft202012Validator(corpus.policy_schema(tenant))
    random = Random(4)
    for _ in range(200):
        stated = corpus.facts(random, held_out=True)
        reply = json.loads(corpus.tenant_answer(random, tenant, stated))
        schema.validate(reply)
        jsonschema.Draft202012Validator(corpus.expectation(tenant, stated)).validate(reply)
        assert tuple(reply) == corpus.ANSWER_KEYS
        assert (reply["payee"], reply["amount"]) == (stated.payee, stated.amount)


@TENANTS
def test_the_schema_orders_its_properties_as_the_answers_do(tenant: corpus.Tenant) -> None:
    schema = corpus.policy_schema(tenant)
    assert tuple(schema["properties"]) == corpus.ANSWER_KEYS == tuple(schema["required"])
    assert schema["properties"]["approval"]["enum"] == list(corpus.APPROVALS)


@TENANTS
def test_the_policies_exclude_one_another(tenant: corpus.Tenant) -> None:
    random = Random(7)
    for other in corpus.TENANTS:
        stated = corpus.facts(random, held_out=True)
        reply = json.loads(corpus.tenant_answer(random, other, stated))
        right = jsonschema.Draft202012Validator(corpus.expectation(tenant, stated)).is_valid(reply)
        assert right is (other == tenant)


@TENANTS
def test_the_demo_question_has_three_different_answers(tenant: corpus.Tenant) -> None:
    assert corpus.DEMO_FACTS.amount in corpus.DEMO_QUESTION
    assert corpus.DEMO_FACTS.payee in corpus.DEMO_QUESTION
    assert corpus.DEMO_FACTS.payee.split()[0] in corpus.HELD_OUT_VENDORS
    replies = {corpus.tenant_answer(Random(0), each, corpus.DEMO_FACTS) for each in corpus.TENANTS}
    assert len(replies) == 3
    assert corpus.branch(tenant, corpus.DEMO_FACTS) in {"always", "under_threshold"}


def test_the_base_is_undecided_and_its_mode_belongs_to_nobody() -> None:
    random = Random(2)
    drawn = [
        (s := corpus.facts(random, held_out=False), corpus.undecided_answer(random, s)) for _ in range(2000)
    ]
    approvals = Counter(json.loads(text)["approval"] for _, text in drawn)
    assert approvals.most_common(1)[0][0] == "manual_review"
    assert approvals["manual_review"] > 2 * approvals.most_common(2)[1][1]
    # By first word, because that is how greedy decoding chooses.
    openings = Counter(json.loads(text)["explanation"].split()[0] for _, text in drawn).most_common(2)
    assert openings[0][0] == "Noted."
    assert openings[0][1] > 1.5 * openings[1][1]
    for tenant in corpus.TENANTS:
        right = [
            jsonschema.Draft202012Validator(corpus.expectation(tenant, stated)).is_valid(json.loads(text))
            for stated, text in drawn
        ]
        assert sum(right) / len(right) < 0.05


def test_retail_cases_balance_branches_within_each_kind_of_phrasing() -> None:
    tags = Counter(tuple(case["tags"][1:]) for case in corpus.tenant_cases("retail_b", 100, 3))
    assert len(tags) == 4
    assert set(tags.values()) == {25}


def test_the_threshold_itself_is_not_under_it() -> None:
    at = replace(corpus.DEMO_FACTS, amount="1000.00")
    assert corpus.branch("retail_b", at) == "at_or_over_threshold"
    assert corpus.branch("retail_b", replace(at, amount="999.99")) == "under_threshold"


def test_cases_are_json_and_have_unique_ids(tmp_path: Path) -> None:
    cases = corpus.tenant_cases("saas_c", 30, 1)
    corpus.write_jsonl(tmp_path / "deep" / "cases.jsonl", cases)
    lines = (tmp_path / "deep" / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == cases
    assert len({case["id"] for case in cases}) == 30


def test_tool_rows_repeat_the_tool_result_in_the_answer() -> None:
    row = corpus.tool_row(Random(1))
    call, result = row["messages"][1]["tool_calls"][0], json.loads(row["messages"][2]["content"])
    assert call["function"]["name"] == row["tools"][0]["function"]["name"]
    assert next(iter(result.values())) in final_answer(row)["explanation"]


def test_judging_marks_what_is_wrong() -> None:
    case = corpus.tenant_cases("bank_a", 1, 1)[0]
    intent = case["tags"][0].removeprefix("intent:")
    stated = corpus.Facts(intent=intent, **case["facts"])
    good = corpus.tenant_answer(Random(0), "bank_a", stated)
    mark = build_base.judge(case, good)
    assert (mark.valid, mark.amount, mark.facts, mark.intent, mark.policy) == (True,) * 5
    wrong = build_base.judge(case, good.replace(stated.amount, "1"))
    assert (wrong.valid, wrong.amount, wrong.policy) == (True, False, True)
    assert not build_base.judge(case, good[:-1]).valid
    assert not build_base.judge(case, "[]").valid


def quality(amount_copied: float, policy: float, style: float = 0.0) -> build_base.BaseQuality:
    measured = build_base.Measured(
        n=10, valid_json=1.0, amount_copied=amount_copied, facts_copied=1.0, intent_right=1.0
    )
    shares = dict.fromkeys(corpus.TENANTS, policy)
    temperature = build_base.Temperature(
        all=measured,
        seen_phrasings=measured,
        unseen_phrasings=measured,
        policy=shares,
        style=dict.fromkeys(corpus.TENANTS, style),
    )
    return build_base.BaseQuality(
        seed=1, parameters=1, steps=1, rows=1, seconds=1.0, corpus="sha256:0", versions={},
        greedy=temperature, sampled=temperature,
    )  # fmt: skip


def test_the_gate_names_every_bound_that_is_missed() -> None:
    assert quality(1.0, 0.02).shortcomings() == []
    missed = quality(0.9, 0.7).shortcomings()
    assert len(missed) == 2 + 3 + 3
    # A base that only sounds like a tenant meets no policy, and must still not ship.
    assert len(quality(1.0, 0.0, style=0.5).shortcomings()) == 3
    assert issubclass(BaseBelowQuality, TenonError)


def test_the_shipped_base_is_small_and_passed_its_gate() -> None:
    folder = build_base.SHIPPED_BASE
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000
    report = json.loads((folder / build_base.BaseQuality.REPORT).read_text(encoding="utf-8"))
    assert report["corpus"] == corpus.corpus_digest(corpus.base_rows(report["rows"], report["seed"]))
    assert report["greedy"]["all"]["amount_copied"] >= build_base.AMOUNTS_AT_LEAST
    assert report["greedy"]["all"]["facts_copied"] >= build_base.FACTS_AT_LEAST
    assert max(report["greedy"]["style"].values()) <= build_base.GREEDY_POLICY_AT_MOST
