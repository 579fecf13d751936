"""Preferences from a judge behind a real endpoint on the loopback."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.commands import tenon
from tests.support.endpoint_server import Answer, refusal, said, serving
from tests.support.tiny_model import write_jsonl
from trainer.datasets import load_rows
from trainer.endpoint import EndpointClient, Retries
from trainer.errors import DataInvalid, EndpointUnreachable, JudgeUnreadable
from trainer.labelling import Tally, label, read_comparisons, read_letter, to_lines
from trainer.recipes.sources import Endpoint

_SHOWN = re.compile(r"<answer_a>\n(.*)\n</answer_a>\n<answer_b>\n(.*)\n</answer_b>", re.DOTALL)


def answers(body: dict[str, Any]) -> tuple[str, str]:
    found = _SHOWN.search(body["messages"][-1]["content"])
    assert found is not None
    return found[1], found[2]


def shorter(body: dict[str, Any], number: int) -> Answer:
    first, second = answers(body)
    return said("A" if len(first) < len(second) else "B")


def rows(n: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Question {number}?", "answers": [f"{number} " + "long " * 3, f"{number}"]}
        for number in range(n)
    ]


def client(url: str, *, concurrency: int = 2) -> EndpointClient:
    endpoint = Endpoint(url=url, model="judge", concurrency=concurrency)
    return EndpointClient(endpoint, None, retries=Retries(attempts=2), sleep=lambda seconds: None)


def run(url: str, file: Path, kept: Path, **options: Any) -> tuple[list[dict[str, Any]], Tally]:
    judge = client(url, concurrency=options.pop("concurrency", 2))
    try:
        return label(read_comparisons(file), judge, judged_by="judge", kept=kept, **options)
    finally:
        judge.close()


def test_what_wins_in_both_orders_becomes_a_pair(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", rows(6))
    progress: list[tuple[int, int]] = []
    with serving(shorter) as server:
        found, tally = run(
            server.url, file, tmp_path / "kept", advanced=lambda done, total: progress.append((done, total))
        )
    assert len(server.seen) == 12
    assert progress == [(done, 12) for done in range(13)]
    assert tally == Tally(decided=6, tied=0, contradictory=0, unreadable=0, shown_first=0.5)
    (tmp_path / "pairs.jsonl").write_text(to_lines(found))
    pairs = load_rows(tmp_path / "pairs.jsonl", shape="pairs").rows
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [
        (row["answers"][1], row["answers"][0]) for row in rows(6)
    ]
    assert pairs[2].prompt[0].content == "Question 2?"
    assert pairs[0].tags == ("judge:judge",)


@pytest.mark.parametrize(("letter", "share"), [("A", 1.0), ("B", 0.0)])
def test_a_judge_that_goes_by_the_place_labels_nothing(tmp_path: Path, letter: str, share: float) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", rows(4))
    with serving(lambda body, number: said(letter)) as server:
        found, tally = run(server.url, file, tmp_path / "kept")
    assert found == []
    assert (tally.contradictory, tally.decided, tally.shown_first) == (4, 0, share)


def test_a_tie_in_either_order_is_a_tie(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", rows(3))

    def judge(body: dict[str, Any], number: int) -> Answer:
        first, second = answers(body)
        return said("Tie." if len(first) > len(second) else "A")

    with serving(judge) as server:
        found, tally = run(server.url, file, tmp_path / "kept")
    assert (found, tally.tied) == ([], 3)


def test_a_damaged_verdict_is_named(tmp_path: Path) -> None:
    file, kept = write_jsonl(tmp_path / "in.jsonl", rows(2)), tmp_path / "kept"
    for line in ("nonsense}", '{"key": "a"}', '{"key": [], "swapped": true, "said": "A"}'):
        kept.write_text(f"{line}\n")
        with pytest.raises(DataInvalid, match="kept:1: is damaged"):
            run("http://127.0.0.1:9/v1", file, kept)


def test_an_endpoint_that_goes_down_halfway_costs_only_what_was_open(tmp_path: Path) -> None:
    file, kept = write_jsonl(tmp_path / "in.jsonl", rows(10)), tmp_path / "kept"
    with (
        serving(lambda body, number: shorter(body, number) if number <= 7 else refusal(503)) as server,
        pytest.raises(EndpointUnreachable) as caught,
    ):
        run(server.url, file, kept, concurrency=1)
    assert "run the same command again" in (caught.value.advice or "")
    assert len(kept.read_text().splitlines()) == 7
    # A crash while a verdict was written, on top of that.
    kept.write_text(kept.read_text() + '{"key": "half')
    with serving(shorter) as server:
        found, tally = run(server.url, file, kept)
    assert len(server.seen) == 20 - 7
    assert (len(found), tally.decided) == (10, 10)
    with serving(shorter) as server:
        assert run(server.url, file, kept) == (found, tally)
    assert server.seen == []


def test_another_rubric_asks_again(tmp_path: Path) -> None:
    file, kept = write_jsonl(tmp_path / "in.jsonl", rows(2)), tmp_path / "kept"
    with serving(shorter) as server:
        run(server.url, file, kept)
        run(server.url, file, kept, rubric="The longer one.")
    assert len(server.seen) == 8
    assert "The longer one." in server.seen[-1][2]["messages"][0]["content"]


def test_a_judge_that_does_not_understand_the_task_is_refused(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", rows(5))
    with (
        serving(lambda body, number: said("I think both are nice")) as server,
        pytest.raises(JudgeUnreadable, match="5 of 5"),
    ):
        run(server.url, file, tmp_path / "kept")


def test_some_unreadable_verdicts_are_counted_and_give_no_pair(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "in.jsonl", rows(10))

    def judge(body: dict[str, Any], number: int) -> Answer:
        return said("hm") if "Question 3?" in body["messages"][-1]["content"] else shorter(body, number)

    with serving(judge) as server:
        found, tally = run(server.url, file, tmp_path / "kept")
    assert (len(found), tally.unreadable, tally.comparisons) == (9, 1, 10)


def test_neighbours_among_the_different_answers_are_compared(tmp_path: Path) -> None:
    sampled = {
        "prompt": "Q", "pass_rate": 0.5,
        "answers": [{"text": text, "accepted": True} for text in ("a", "b", "a", " ", "c", "d", "e")],
    }  # fmt: skip
    alike = {"prompt": "R", "answers": ["same", "same"]}
    found = read_comparisons(write_jsonl(tmp_path / "in.jsonl", [sampled, alike]))
    assert [(one.first, one.second, one.line) for one in found] == [("a", "b", 1), ("c", "d", 1)]


def test_faults_of_the_file_are_told_all_at_once(tmp_path: Path) -> None:
    bad: Sequence[dict[str, Any]] = [
        {"prompt": "Q"},
        {"answers": ["a", "b"]},
        {"prompt": "Q", "answers": [1, 2]},
    ]
    with pytest.raises(DataInvalid) as caught:
        read_comparisons(write_jsonl(tmp_path / "in.jsonl", list(bad)))
    lines = [str(fault) for fault in caught.value.faults]
    assert [line.split(": ")[0] for line in lines] == ["in.jsonl:1", "in.jsonl:2", "in.jsonl:3"]
    with pytest.raises(DataInvalid, match="no question with two different answers"):
        read_comparisons(write_jsonl(tmp_path / "same.jsonl", [{"prompt": "Q", "answers": ["a", "a"]}]))


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"), (" b.", "B"), ("**A**", "A"), ("T", "T"), ("tie", "T"), ("Answer B is better", "B"),
        ("", None), ("Because", None), ("An answer", None), ("None", None), ("The first", None),
    ],
)  # fmt: skip
def test_a_letter_is_read_and_never_guessed(text: str, letter: str | None) -> None:
    assert read_letter(text) == letter


def test_the_command_writes_pairs_and_removes_its_verdicts(tmp_path: Path) -> None:
    file, out = write_jsonl(tmp_path / "in.jsonl", rows(3)), tmp_path / "pairs.jsonl"
    with serving(shorter) as server:
        asked = ("--endpoint", server.url, "--model", "j", "--json")
        done = tenon("data", "label", str(file), "-O", str(out), *asked)
    assert done.code == 0, done.err
    assert json.loads(done.out)["decided"] == 3
    assert len(load_rows(out, shape="pairs").rows) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "pairs.jsonl"]
