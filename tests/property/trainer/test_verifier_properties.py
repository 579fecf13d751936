"""What holds for verifiers whatever a model says."""

import json
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets import Case, Message
from trainer.learning.rewarding import Overlong
from trainer.recipes.sources import RewardSettings
from trainer.rewards import Answer, Resources, build, score
from trainer.rewards.tool_calls import calls

CASE = Case(
    "case",
    (Message("user", "?"),),
    1,
    facts={"amount": "5"},
    expect={"type": "object"},
    answer="yes",
    columns={"calls": [{"name": "pay", "arguments": {"amount": "5"}}]},
)
PURE = (
    "valid_json",
    "policy",
    "field_equal",
    "word_limit",
    "exact",
    "contains",
    "tool_call",
    "journal_balanced",
)
REWARDS = build([(RewardSettings(verifier=name), Resources()) for name in PURE])
MONEY = st.decimals(min_value=0, max_value=10**9, places=2, allow_nan=False, allow_infinity=False)


@given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("utf-8", "replace"))))
def test_any_text_gets_a_score_between_0_and_1(text: str) -> None:
    for given_ in score(REWARDS, [Answer(CASE, text)])[0].scores.values():
        assert given_ is not None
        assert 0 <= given_ <= 1


@given(st.integers(1, 200), st.integers(0, 500), st.integers(0, 500))
def test_more_words_never_score_better(limit: int, fewer: int, more: int) -> None:
    few, many = sorted((fewer, more))
    for decay in ("none", "linear"):
        settings = {"limit": limit, "decay": decay}
        rewards = build([(RewardSettings(verifier="word_limit", settings=settings), Resources())])
        first, second = score(rewards, [Answer(CASE, "w " * few), Answer(CASE, "w " * many)])
        assert first.total >= second.total


@given(st.lists(MONEY, min_size=1, max_size=8), MONEY)
def test_a_journal_balances_however_it_is_split_and_never_with_a_cent_more(
    debits: list[Decimal], extra: Decimal
) -> None:
    total = sum(debits)

    def journal(credit: Decimal) -> float:
        entries = [{"debit": str(debit)} for debit in debits] + [{"credit": str(credit)}]
        rewards = build([(RewardSettings(verifier="journal_balanced"), Resources())])
        return score(rewards, [Answer(CASE, json.dumps({"entries": entries}))])[0].total

    assert journal(Decimal(total)) == float(total > 0)
    assert extra == 0 or journal(Decimal(total) + extra) == 0.0


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(-99, 99), max_size=3), max_size=4))
def test_calls_are_read_back_as_they_were_written(arguments: list[dict[str, int]]) -> None:
    written = [{"name": "pay", "arguments": one} for one in arguments]
    text = "".join(f"<tool_call>\n{json.dumps(one)}\n</tool_call>" for one in written)
    assert calls(text) == written


@given(st.integers(1, 10_000), st.integers(0, 20_000))
def test_the_soft_punishment_falls_from_nothing_to_one(limit: int, tokens: int) -> None:
    overlong = Overlong(limit)
    assert -1 <= overlong(tokens) <= 0
    assert overlong(tokens) >= overlong(tokens + 1)
    assert overlong(limit - overlong.margin) == 0
    assert overlong(limit) == -1
