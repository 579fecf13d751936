"""Answers drawn, kept, verified and picked; and the files that data commands write of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.endpoint_server import said, serving
from tests.support.tiny_model import case as case_row
from tests.support.tiny_model import write_jsonl
from trainer.answers_file import AnswersFile, key_of
from trainer.asking import ask_all
from trainer.datasets import Case, Message, load_rows
from trainer.endpoint import EndpointClient, Reply, Retries
from trainer.errors import DataInvalid, EndpointUnreachable, RowTooLong
from trainer.learning.job import TeacherModel
from trainer.learning.sampling import draw
from trainer.recipes.sources import Endpoint
from trainer.recipes.training import Sampling
from trainer.rewards import Reward, Scored, each
from trainer.selection import Attempt, Tried, pick, select, try_answers, within
from trainer.tried_file import filtered, read_tried, to_lines

SAMPLING = Sampling(max_new_tokens=6)


def question(number: int, text: str | None = None) -> Case:
    return Case(f"case-{number}", (Message("user", text or f"Pay {number}"),), number + 1)


def scored(total: float, *, accepted: bool = True) -> Scored:
    return Scored({"policy": float(accepted)}, total, accepted)


def attempt(text: str, total: float = 1.0, *, accepted: bool = True, unusable: str | None = None) -> Attempt:
    return Attempt(text, scored(total, accepted=accepted), unusable)


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    keys = [key_of(question(1), SAMPLING, who="a", seed=1, number=number) for number in range(3)]
    with AnswersFile(path) as kept:
        kept.add(keys[0], Reply("first\nline", finished=False))
        kept.add(keys[1], Reply("ü", calls=({"name": "f", "arguments": "{}"},)))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "sha256:12')
    with AnswersFile(path) as kept:
        assert (keys[0] in kept, keys[2] in kept) == (True, False)
        assert kept[keys[0]] == Reply("first\nline", finished=False)
        assert kept[keys[1]] == Reply("ü", calls=({"name": "f", "arguments": "{}"},))
        kept.add(keys[2], Reply("third"))
    with AnswersFile(path) as kept:
        assert kept[keys[2]] == Reply("third")
    assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize("line", ['{"key": "sha2', "[]", "{}", '{"key": "x", "text": "y"}', ""])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswersFile(path) as kept:
        for number in range(2):
            kept.add(key_of(question(1), SAMPLING, who="a", seed=1, number=number), Reply("one"))
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{second}\n")
    with pytest.raises(DataInvalid, match=r"answers\.jsonl:2: is damaged") as failed:
        AnswersFile(path)
    assert "delete line 2 of" in (failed.value.advice or "")
    path.write_text(f"{first}\n{second}\n")
    with AnswersFile(path) as kept:
        assert kept.proof()["count"] == 2


def test_the_proof_of_answers_is_their_content_and_not_their_order(tmp_path: Path) -> None:
    keys = [key_of(question(1), SAMPLING, who="a", seed=1, number=number) for number in range(2)]

    def digest(name: str, *texts: tuple[int, str]) -> object:
        with AnswersFile(tmp_path / name) as kept:
            for number, text in texts:
                kept.add(keys[number], Reply(text))
        with AnswersFile(tmp_path / name) as kept:  # as a run that is picked up again sees them
            return kept.proof()["digest"]

    assert digest("a", (0, "x"), (1, "y")) == digest("b", (1, "y"), (0, "x"))
    assert digest("a2", (0, "x"), (1, "y")) != digest("c", (0, "x"), (1, "z"))


def test_an_answer_is_named_by_everything_that_decides_it() -> None:
    plain: dict[str, Any] = {"who": "a", "seed": 1, "number": 0}
    asked = question(1)
    names = {
        key_of(asked, SAMPLING, **plain),
        key_of(question(2), SAMPLING, **plain),
        key_of(asked, Sampling(max_new_tokens=7), **plain),
        key_of(asked, None, **plain),
        *(key_of(asked, SAMPLING, **{**plain, name: value}) for name, value in
          (("who", "b"), ("seed", 2), ("number", 1))),
    }  # fmt: skip
    assert len(names) == 7
    assert key_of(question(1), SAMPLING, **plain) in names


def drawn(base_folder: Path, path: Path, cases: list[Case], **more: Any) -> list[list[Reply]]:
    with AnswersFile(path) as kept:
        return draw(
            TeacherModel(base_folder), cases, file="cases.jsonl", sampling=SAMPLING, samples=3, seed=5,
            max_length=100, kept=kept, **more,
        )  # fmt: skip


def test_what_a_killed_run_drew_is_neither_drawn_again_nor_drawn_differently(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from trainer.learning import sampling

    monkeypatch.setattr(sampling, "AT_ONCE", 4)
    cases = [question(number, "Pay " + "1" * number) for number in range(1, 6)]
    whole = drawn(base_folder, tmp_path / "whole", cases)
    assert [len(several) for several in whole] == [3] * 5
    assert len({reply.text for several in whole for reply in several}) > 8
    batches: list[int] = []
    real = sampling._draw

    class Killed(Exception):
        pass

    def until_killed(*args: Any) -> Any:
        batches.append(len(args[2]))
        if len(batches) == 3:
            raise Killed
        return real(*args)

    monkeypatch.setattr(sampling, "_draw", until_killed)
    with pytest.raises(Killed):
        drawn(base_folder, tmp_path / "killed", cases)
    torch.manual_seed(99)  # whatever the next process does before must not matter
    assert drawn(base_folder, tmp_path / "killed", cases) == whole
    assert batches == [4, 4, 4, 4, 3]  # the two that were whole are not drawn again


def test_a_cut_answer_is_not_finished(base_folder: Path, tmp_path: Path) -> None:
    """A random model hardly ever ends its turn within six tokens."""
    replies = [reply for several in drawn(base_folder, tmp_path / "a", [question(1)]) for reply in several]
    assert not any(reply.finished for reply in replies)
    tried = try_answers((), [question(1)], [replies])
    assert [one.unusable for one in tried[0].attempts] == ["cut_off"] * 3
    assert tried[0].pass_rate == 0


def test_a_question_without_room_for_its_answer_is_named(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RowTooLong, match=r"cases\.jsonl:3"):
        drawn(base_folder, tmp_path / "a", [question(2, "Pay " + "1" * 100)])


def test_an_endpoint_that_dies_halfway_is_asked_only_the_rest(tmp_path: Path) -> None:
    cases = [question(number) for number in range(12)]
    alive = True

    def reply(body: dict[str, Any], number: int) -> Any:
        if not alive or number > 7:
            return 503, {}, {"error": {"message": "down"}}
        return said(body["messages"][0]["content"] + f"/{body['seed']}")

    with serving(reply) as server:
        endpoint = Endpoint(url=server.url, model="m", concurrency=2)

        def ask() -> list[list[Reply]]:
            client = EndpointClient(endpoint, None, retries=Retries(attempts=2), sleep=lambda seconds: None)
            with AnswersFile(tmp_path / "kept") as kept:
                return ask_all(
                    endpoint, None, cases, sampling=SAMPLING, samples=2, seed=1, longest=6, kept=kept,
                    client=client, advanced=lambda done, total: progress.append((done, total)),
                )  # fmt: skip

        progress: list[tuple[int, int]] = []
        with pytest.raises(EndpointUnreachable):
            ask()
        first = len((tmp_path / "kept").read_text().splitlines())
        assert 6 <= first <= 7
        asked = len(server.seen)
        server.reply = lambda body, number: said(body["messages"][0]["content"] + f"/{body['seed']}")
        progress.clear()
        replies = ask()
        assert len(server.seen) - asked == 24 - first
    assert progress[0] == (first, 24)
    assert progress[-1] == (24, 24)
    assert [len({one.text for one in several}) for several in replies] == [2] * 12  # other seeds
    assert all(
        one.text.startswith(f"Pay {place}/") for place, several in enumerate(replies) for one in several
    )


def test_the_likeliest_answer_is_asked_without_a_seed(tmp_path: Path) -> None:
    with serving(lambda body, number: said("x")) as server, AnswersFile(tmp_path / "kept") as kept:
        endpoint = Endpoint(url=server.url, model="m")
        ask_all(
            endpoint, None, [question(1), question(1)], sampling=None, samples=1, seed=1, longest=9, kept=kept
        )
    assert len(server.seen) == 1  # the same question twice is one question
    body = server.seen[0][2]
    assert (body["temperature"], body["max_tokens"], "seed" in body) == (0.0, 9, False)


def test_what_is_picked() -> None:
    several = (
        attempt("long one of four", 2.0), attempt("short one", 1.0), attempt("long one of four", 2.0),
        attempt("refused", 9.0, accepted=False), attempt("cut", 9.0, unusable="cut_off"),
        attempt("also best x", 2.0),
    )  # fmt: skip
    assert [one.text for one in pick(several, "best")] == ["long one of four"]
    assert [one.text for one in pick(several, "shortest")] == ["short one"]
    assert [one.text for one in pick(several, "all")] == ["long one of four", "short one", "also best x"]
    assert pick(several[3:5], "best") == ()


@pytest.mark.parametrize(
    ("rate", "bounds", "inside"),
    [
        (0.0, (0.0, 1.0), False), (0.01, (0.0, 1.0), True), (1.0, (0.0, 1.0), True), (1.0, (0.1, 0.9), False),
        (0.1, (0.1, 0.9), True), (0.9, (0.1, 0.9), True), (0.05, (0.1, 0.9), False),
    ],
)  # fmt: skip
def test_pass_rates(rate: float, bounds: tuple[float, float], inside: bool) -> None:
    assert within(rate, bounds) is inside


def test_selection_counts_what_each_verifier_turned_down() -> None:
    even = Reward("even", 1.0, each(lambda answer: float(len(answer.text) % 2 == 0)))
    short = Reward("short", 1.0, each(lambda answer: float(len(answer.text) < 4)))
    mood = Reward("mood", 0.5, each(lambda answer: 0.25), binary=False)
    replies = [
        [Reply("ab"), Reply("abc"), Reply("abcdef"), Reply("abcde")],
        [Reply(" "), Reply("no", finished=False), Reply("<x>z"), Reply("ok", calls=({"name": "f"},))],
    ]
    cases = [question(0), question(1)]
    tried = try_answers((even, short, mood), cases, replies, control_tokens=("<x>",))
    chosen, tally = select(tried, (even, short, mood), keep="best")
    assert [(row.messages[-1].content, row.line) for row in chosen] == [("ab", 1)]
    assert tally.as_json() == {
        "questions": 2, "answered": 8, "accepted": 1, "learned": 1,
        "rejected": {"empty": 1, "cut_off": 1, "control_token": 1, "tool_call": 1, "even": 2, "short": 3},
    }  # fmt: skip
    assert "turned down: empty 1" in str(tally)


@pytest.fixture
def tried() -> tuple[Tried, ...]:
    rows = [
        (0, [attempt("good"), attempt("bad", 0.0, accepted=False), attempt("worse", -1.0, accepted=False)]),
        (1, [attempt("always"), attempt("right")]),
        (2, [attempt("never", 0.0, accepted=False)]),
        (3, [attempt("fine"), attempt("cut", 0.0, accepted=False, unusable="cut_off")]),
    ]
    return tuple(Tried(question(number), tuple(several)) for number, several in rows)


def test_a_sampled_file_reads_back_as_it_was(tried: tuple[Tried, ...], tmp_path: Path) -> None:
    row = case_row(4)
    path = write_jsonl(tmp_path / "cases.jsonl", [row])
    (full,) = load_rows(path, shape="cases").rows
    everything = (*tried, Tried(full, (attempt("x", 0.3),)))
    out = tmp_path / "sampled.jsonl"
    out.write_text(to_lines(everything))
    back = read_tried(out)
    assert [one.attempts for one in back] == [one.attempts for one in everything]
    assert [
        (one.case.id, one.case.prompt, one.case.facts, one.case.expect, one.case.tags) for one in back
    ] == [
        (one.case.id, one.case.prompt, one.case.facts, one.case.expect, one.case.tags) for one in everything
    ]


def test_filters_write_files_that_training_reads(tried: tuple[Tried, ...], tmp_path: Path) -> None:
    def rows(written: Any, keep: Any, low: float, high: float) -> Any:
        text, count = filtered(tried, keep=keep, pass_rate=(low, high), written=written)
        path = tmp_path / "out.jsonl"
        path.write_text(text)
        loaded = load_rows(path, shape=written).rows
        assert len(loaded) == count
        return loaded

    learned = rows("conversations", "all", 0, 1)
    assert [row.messages[-1].content for row in learned] == ["good", "always", "right", "fine"]
    assert [row.messages[-1].content for row in rows("conversations", "best", 0.1, 0.9)] == ["good", "fine"]
    assert [(row.chosen, row.rejected) for row in rows("pairs", "best", 0, 1)] == [("good", "worse")]
    assert [row.id for row in rows("cases", "best", 0.1, 0.9)] == ["case-0", "case-3"]


def test_a_file_that_is_not_sampled_is_refused_with_its_lines(tmp_path: Path) -> None:
    good = json.loads(to_lines([Tried(question(0), (attempt("a"),))]))
    broken = [good, {**good, "answers": []}, {**good, "answers": [{"text": "x"}]}, {**good, "facts": 3}]
    path = write_jsonl(tmp_path / "sampled.jsonl", broken)
    with pytest.raises(DataInvalid) as error:
        read_tried(path)
    assert [fault.where for fault in error.value.faults] == [f"sampled.jsonl:{line}" for line in (2, 3, 4)]
