"""``tenon data verifiers`` and ``tenon data verify``: trying a reward before a model learns to please it."""

import json
from pathlib import Path

import pytest

from tests.journeys.commands import tenon
from tests.support.tiny_model import write_jsonl

ROWS = [
    {"prompt": "a", "completion": "one two three", "answer": "one"},
    {"prompt": "b", "answer": "one"},
]


@pytest.fixture
def answers(tmp_path: Path) -> str:
    return str(write_jsonl(tmp_path / "answers.jsonl", ROWS))


def test_every_verifier_is_listed_with_its_settings() -> None:
    done = tenon("data", "verifiers")
    assert done.code == 0, done.err
    for text in ("word_limit", 'limit=50, decay="none"', "unit_tests", "pattern (required)"):
        assert text in done.out
    listed = json.loads(tenon("data", "verifiers", "--json").out)
    assert {kind["name"] for kind in listed} >= {"policy", "journal_balanced", "tool_call", "reward_model"}


def test_given_answers_are_scored(answers: str) -> None:
    done = tenon(
        "data", "verify", answers, "--json",
        "--verifier", "word_limit", "--set", "limit=2", "--set", "decay=linear",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [row["scores"] for row in json.loads(done.out)] == [{"word_limit": 0.5}, {"word_limit": 1.0}]
    done = tenon("data", "verify", answers, "--verifier", "exact")
    assert "exact: 0.5 over 2 of 2 answers" in done.err


def test_what_is_wrong_is_said(answers: str, tmp_path: Path) -> None:
    done = tenon("data", "verify", answers, "--verifier", "regex")
    assert (done.code, "pattern: Field required" in done.err) == (1, True)
    done = tenon("data", "verify", answers, "--verifier", "nonsense")
    assert (done.code, "is not one of" in done.err) == (1, True)
    assert tenon("data", "verify", answers).code == 2
    argv = json.dumps(["/bin/sh", "-c", "echo nan"])
    done = tenon("data", "verify", answers, "--verifier", "command", "--set", f"argv={argv}")
    assert done.code == 1
    assert "command failed at line 1" in done.err
    assert "verifier_failed" in done.err
    empty = write_jsonl(tmp_path / "none.jsonl", [{"prompt": "a"}])
    done = tenon("data", "verify", str(empty), "--verifier", "exact")
    assert "none.jsonl:1: has nothing to judge" in done.err
