"""Every verifier by its settings, and what stops a run instead of rewarding it."""

import math
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from trainer.datasets import Case, Message
from trainer.errors import RecipeInvalid, VerifierFailed
from trainer.recipes.sources import RewardSettings
from trainer.rewards import KINDS, Answer, Resources, Reward, Score, build, each, score
from trainer.rewards.limit import bounded
from trainer.rewards.program import run_program


def case(line: int = 1, **known: Any) -> Case:
    return Case(id=f"case-{line}", prompt=(Message("user", "?"),), line=line, **known)


def judged(kind: str, text: str, known: Case | None = None, **settings: Any) -> Score:
    line = RewardSettings(verifier=kind, settings=settings)
    reward = build([(line, Resources())])[0]
    return score([reward], [Answer(known or case(), text)])[0].scores[reward.name]


def words(count: int) -> str:
    return " ".join(["word"] * count)


@pytest.mark.parametrize(
    ("kind", "settings", "known", "text", "expected"),
    [
        ("valid_json", {}, {}, '{"a":1}', 1.0),
        ("valid_json", {}, {}, '{"a":1,"a":2}', 0.0),
        ("valid_json", {}, {}, "[" * 100_000, 0.0),
        ("policy", {}, {"expect": {"required": ["a"]}}, '{"a":1}', 1.0),
        ("policy", {}, {}, '{"a":1}', None),
        ("schema_valid", {"json_schema": {"type": "object"}}, {}, "[]", 0.0),
        ("field_equal", {}, {"facts": {"a": "1", "b": "2"}}, '{"a":"1","b":"3"}', 0.5),
        ("field_equal", {"fields": ["a"]}, {"facts": {"a": "1", "b": "2"}}, '{"a":"1"}', 1.0),
        ("word_limit", {"limit": 50}, {}, words(50), 1.0),
        ("word_limit", {"limit": 50}, {}, words(51), 0.0),
        ("word_limit", {"limit": 50, "decay": "linear"}, {}, words(60), 0.8),
        ("word_limit", {"limit": 50, "decay": "linear"}, {}, words(100), 0.0),
        ("exact", {}, {"answer": "yes"}, " yes\n", 1.0),
        ("exact", {}, {}, "yes", None),
        ("contains", {}, {"facts": {"a": "Norvik"}}, "to Norvik Ltd", 1.0),
        ("contains", {"texts": ["EUR"], "ignore_case": True}, {}, "5 eur", 1.0),
        ("contains", {"texts": ["EUR"]}, {}, "5 eur", 0.0),
        ("regex", {"pattern": "^a+$"}, {}, "aaa", 1.0),
        ("regex", {"pattern": "b", "match": "whole"}, {}, "abc", 0.0),
        ("regex", {"pattern": "b", "forbid": True}, {}, "abc", 0.0),
    ],
)
def test_what_a_verifier_says(
    kind: str, settings: dict[str, Any], known: dict[str, Any], text: str, expected: Score
) -> None:
    assert judged(kind, text, case(**known), **settings) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ('{"entries":[{"debit":"0.10"},{"debit":0.2},{"credit":"0.30"}]}', {}, 1.0),
        ('{"entries":[{"debit":"0.1"},{"debit":"0.2"},{"credit":"0.30000000000000004"}]}', {}, 0.0),
        ('{"entries":[{"debit":"5"},{"credit":"4.99"}]}', {}, 0.0),
        ('{"entries":[{"debit":"1e9999"},{"credit":"1e9999"}]}', {}, 0.0),
        ('{"entries":[{"debit":"-5"},{"credit":"-5"}]}', {}, 0.0),
        ('{"entries":[{"debit":"0"},{"credit":"0"}]}', {}, 0.0),
        ('{"entries":[]}', {}, 0.0),
        ('{"entries":[{"debit":true},{"credit":true}]}', {}, 0.0),
        ('{"lines":[{"d":"5"},{"c":"5"}]}', {"entries": "lines", "debit": "d", "credit": "c"}, 1.0),
        ('{"entries":[{"debit":"5"},{"credit":"5"}]}', {"total": "amount"}, 0.0),
        ('{"entries":[{"debit":"6"},{"credit":"6"}]}', {"total": "amount"}, 1.0),
        ("no json", {}, 0.0),
    ],
)
def test_a_journal_balances_exactly_or_not(text: str, settings: dict[str, str], expected: float) -> None:
    assert judged("journal_balanced", text, case(facts={"amount": "6"}), **settings) == expected


RATE = {"name": "get_rate", "arguments": {"currency": "EUR"}}
FIND = {"name": "find_entry", "arguments": {}}
CALLED = '<tool_call>\n{"name":"get_rate","arguments":{"currency":"EUR"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "expected", "measure", "score"),
    [
        (CALLED, [RATE], "f1", 1.0),
        (CALLED, [RATE, FIND], "recall", 0.5),
        (CALLED, [RATE, FIND], "precision", 1.0),
        (CALLED + CALLED, [RATE], "precision", 0.5),
        (CALLED.replace("EUR", "USD"), [RATE], "f1", 0.0),
        (CALLED + "<tool_call>oops</tool_call>", [RATE], "precision", 0.5),
        ("", [], "f1", 1.0),
        (CALLED, [], "precision", 0.0),
        ("<tool_call>" + "[" * 50_000 + "</tool_call>", [RATE], "f1", 0.0),
    ],
)
def test_tool_calls_are_compared_with_those_expected(
    text: str, expected: list[Any], measure: str, score: float
) -> None:
    assert judged("tool_call", text, case(columns={"calls": expected}), measure=measure) == score


@pytest.mark.parametrize("bad", [{"arguments": {}}, "get_rate", {"name": 1}, {"name": "f", "arguments": []}])
def test_an_expected_call_that_is_none_stops_the_run_and_names_its_line(bad: Any) -> None:
    with pytest.raises(VerifierFailed, match=r"line 6: ValueError: columns\.calls\[1\] must be") as caught:
        judged("tool_call", CALLED, case(6, columns={"calls": [RATE, bad]}))
    assert caught.value.facts["line"] == 6


def test_only_a_limit_without_decay_accepts_and_turns_down() -> None:
    def accepted(decay: str, count: int) -> bool:
        settings = {"limit": 50, "decay": decay}
        lines = [
            RewardSettings(verifier="word_limit", settings=settings),
            RewardSettings(verifier="contains", settings={"texts": ["word"]}),
        ]
        rewards = build([(line, Resources()) for line in lines])
        assert rewards[0].binary is (decay == "none")
        return score(rewards, [Answer(case(), words(count))])[0].accepted

    assert [accepted("none", count) for count in (0, 50, 51)] == [False, True, False]
    assert [accepted("linear", count) for count in (0, 75, 76)] == [False, True, True]  # "contains" decides


def test_arguments_can_be_left_out_of_account() -> None:
    other = CALLED.replace("EUR", "USD")
    assert judged("tool_call", other, case(columns={"calls": [RATE]}), names_only=True) == 1.0


# What runs away


def test_a_pattern_that_backtracks_without_end_stops_the_run_and_names_the_line() -> None:
    started = time.monotonic()
    with pytest.raises(VerifierFailed, match="regex failed at line 9: TimeoutError"):
        judged("regex", "a" * 50 + "b", case(9), pattern="(a+)+$")
    assert time.monotonic() - started < 6


def test_a_loop_in_python_is_interrupted_in_any_thread() -> None:
    def spin(seen: list[str]) -> None:
        try:
            with bounded(0.2):
                while True:
                    pass
        except TimeoutError as error:
            seen.append(str(error))

    here: list[str] = []
    spin(here)
    there: list[str] = []
    thread = threading.Thread(target=spin, args=(there,))
    thread.start()
    thread.join(10)
    assert here == there == ["took more than 0.2 seconds"]


def test_what_ends_in_time_is_never_interrupted_later() -> None:
    with bounded(0.05):
        pass
    time.sleep(0.12)  # were the alarm still set, it would ring here


@pytest.mark.parametrize("bad", [math.nan, math.inf, "0.5"])
def test_what_is_no_finite_number_stops_the_run(bad: Any) -> None:
    reward = Reward("odd", 1.0, each(lambda answer: bad))
    with pytest.raises(VerifierFailed, match=r"odd gave .* at line 4") as caught:
        score([reward], [Answer(case(4), "x")])
    assert caught.value.facts["line"] == 4


def test_a_verifier_that_raises_is_named_with_its_line() -> None:
    def judge(answer: Answer) -> float:
        return 1 / (answer.case.line - 2)

    with pytest.raises(VerifierFailed, match="mine failed at line 2: ZeroDivisionError"):
        score([Reward("mine", 1.0, each(judge))], [Answer(case(1), ""), Answer(case(2), "")])


def test_a_score_for_every_answer_or_none() -> None:
    with pytest.raises(VerifierFailed, match="short gave 1 scores for 2"):
        score([Reward("short", 1.0, lambda answers: [1.0])], [Answer(case(), "")] * 2)


# Programs


def test_a_program_scores_and_sees_the_case(tmp_path: Path) -> None:
    program = tmp_path / "score.py"
    program.write_text(
        "import json,sys,os\n"
        "asked=json.load(sys.stdin)\n"
        "assert sorted(os.environ) in (['LANG','PATH'],['LANG','LC_CTYPE','PATH'])\n"
        "print(len(asked['text']) / asked['columns']['most'])\n"
    )
    argv = [sys.executable, str(program)]
    assert judged("command", "abc", case(columns={"most": 6}), argv=argv) == 0.5


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("exit 3", "ended with 3"),
        ("echo nan", "printed 'nan'"),
        ("echo much", "printed 'much', not one number"),
        ("sleep 60", "took more than 1 seconds"),
    ],
)
def test_a_program_that_goes_wrong_stops_the_run(script: str, complaint: str) -> None:
    with pytest.raises(VerifierFailed, match=f"command failed at line 3: .*{complaint}"):
        judged("command", "", case(3), argv=["/bin/sh", "-c", script], timeout=1)


def test_whatever_a_program_started_ends_with_it(tmp_path: Path) -> None:
    marker = tmp_path / "alive"
    script = f"(sleep 1; touch {marker}) & sleep 60"
    with pytest.raises(TimeoutError):
        run_program(["/bin/sh", "-c", script], b"", seconds=0.3)
    time.sleep(1.2)  # longer than what it left behind would have needed
    assert not marker.exists()


ADD = case(columns={"tests": "assert add(1, 2) == 3"})


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def add(a, b): return a + b", 1.0),
        ("Here:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", 1.0),
        ("def add(a, b): return a - b", 0.0),
        ("not python (", 0.0),
        ("import sys; sys.exit(0)", 0.0),
        ("import os; os._exit(0)", 0.0),
        ("while True: pass", 0.0),
        ("x = 'a' * 10**10\ndef add(a, b): return 3", 0.0),
        ("print('x' * 10**6)\ndef add(a, b): return a + b", 1.0),
    ],
)
def test_only_tests_that_ran_to_their_end_count(code: str, expected: float) -> None:
    assert judged("unit_tests", code, ADD, timeout=1, isolation="best_effort") == expected


# From a recipe


def test_every_kind_is_described() -> None:
    for kind in KINDS.values():
        assert kind.summary
        assert kind.settings.model_json_schema()["type"] == "object"


def test_faults_of_all_lines_are_named_at_once() -> None:
    lines = [
        RewardSettings(verifier="nonsense"),
        RewardSettings(verifier="regex", settings={"pattern": "("}),
        RewardSettings(verifier="word_limit", settings={"limt": 3}),
        RewardSettings(verifier="schema_valid"),
    ]
    with pytest.raises(RecipeInvalid) as caught:
        build([(line, Resources()) for line in lines])
    assert [fault.where for fault in caught.value.faults] == [
        "rewards[0]", "rewards[1].settings.pattern", "rewards[2].settings.limt", "rewards[3]",
    ]  # fmt: skip


def test_two_of_a_kind_keep_their_own_names() -> None:
    lines = [RewardSettings(verifier="word_limit", settings={"limit": count}) for count in (1, 2)]
    rewards = build([(line, Resources()) for line in lines])
    scored = score(rewards, [Answer(case(), "one two")])[0]
    assert scored.scores == {"word_limit": 0.0, "word_limit_2": 1.0}
    assert (scored.total, scored.accepted) == (1.0, False)
