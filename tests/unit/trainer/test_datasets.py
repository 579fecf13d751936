"""Training rows and cases: every fault with its line, nothing dropped, no question in both files."""

import json
from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from tests.support.tiny_model import case, conversation, write_jsonl
from trainer.datasets import Dataset, examples, load_conversations, refuse_leaks
from trainer.errors import DataInvalid, DataLeak, FileFaulty
from trainer.evaluation.suite import load_suite


def turns(*roles_and_texts: str) -> dict[str, Any]:
    pairs = zip(roles_and_texts[::2], roles_and_texts[1::2], strict=True)
    return {"messages": [{"role": role, "content": text} for role, text in pairs]}


def faults(path: Path, content: bytes | str) -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataInvalid) as caught:
        (load_suite if "cases" in path.name else load_conversations)(path)
    return [str(fault) for fault in caught.value.faults]


def test_rows_are_read_in_order_with_their_lines(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", [conversation(1), conversation(2), conversation(1)])
    dataset = load_conversations(path)
    assert [row.line for row in dataset.rows] == [1, 2, 3]
    assert dataset.digest == Digest.of_file(path)
    assert dataset.repeated == (3,)
    assert load_conversations(path) == dataset


def test_every_fault_is_listed_by_line(tmp_path: Path) -> None:
    rows = [
        json.dumps(conversation(1)),
        '{"messages": [',
        "",
        "[1]",
        json.dumps(turns("user", "a", "assistant", " \n")),
        json.dumps(turns("assistant", "a")),
        json.dumps(turns("user", "a")),
        json.dumps(turns("user", "a", "user", "b")),
        json.dumps(turns("user", "a", "system", "b", "assistant", "c")),
        json.dumps(turns("user", "a", "asistant", "b")),
        json.dumps({"mesages": []}),
        json.dumps({"messages": [{"role": "user", "content": 5}]}),
        '{"messages": [], "messages": []}',
        '{"messages": [{"role": "user", "content": "\\ud800"}]}',
        json.dumps(turns("system", "a")),
        '{"messages": [{"role": "user", "content": "a", "x": NaN}]}',
    ]
    found = faults(tmp_path / "train.jsonl", "\n".join(rows) + "\n")
    text = {int(fault.split(":")[1]): fault.split(": ", 1)[1] for fault in found}
    assert set(text) == set(range(2, 17))
    assert text[3] == "is an empty line"
    assert text[4] == "must be a JSON object"
    assert text[5].startswith("messages[1].content is empty, and teaches to say nothing")
    assert text[6] == "messages[0].role is assistant, expected user"
    assert (
        text[7] == "messages must end with the assistant's answer, not with user: add it, or delete the row"
    )
    assert text[8] == "messages[1].role is user, expected assistant"
    assert text[9].startswith("messages[1].role is system, expected assistant (a system message stands first")
    assert text[10] == (
        "messages[1].role must be one of system, user, assistant, tool; did you mean assistant?"
    )
    assert text[11] == "messages is missing"
    assert text[12] == "messages[0].content must be text"
    assert "twice" in text[13]
    assert "surrogate" in text[14]
    assert text[15] == "messages has no user message"
    assert "train.jsonl:11: 'mesages' is not a known key; did you mean messages?" in found


def test_bytes_that_are_not_utf_8_name_their_line(tmp_path: Path) -> None:
    good = json.dumps(conversation(1)).encode() + b"\n"
    assert faults(tmp_path / "train.jsonl", good + b'{"messages": "\xff"}\n') == [
        "train.jsonl:2: is not UTF-8 (byte 15): save the file as UTF-8"
    ]


@pytest.mark.parametrize("name", ["train.jsonl", "cases.jsonl"])
def test_an_empty_file_is_a_fault(tmp_path: Path, name: str) -> None:
    assert faults(tmp_path / name, "") == [f"{name}: is empty"]


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="No such file"):
        load_conversations(tmp_path / "train.jsonl")


def test_the_last_line_needs_no_line_break(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(conversation(1)))
    assert len(load_conversations(path).rows) == 1


def test_each_assistant_turn_is_an_example_after_what_came_before_it(tmp_path: Path) -> None:
    row = turns("system", "s", "user", "a", "assistant", "b", "user", "c", "assistant", "d")
    (first, second) = examples(load_conversations(write_jsonl(tmp_path / "train.jsonl", [row])).rows)
    assert (first.answer.content, second.answer.content) == ("b", "d")
    assert [message.content for message in first.prompt] == ["s", "a"]
    assert [message.content for message in second.prompt] == ["s", "a", "b", "c"]
    assert first.line == second.line == 1


def asked(folder: Path, *prompts: list[dict[str, str]]) -> Dataset[Any]:
    rows = [{"messages": prompt, "answer": "x"} for prompt in prompts]
    return load_suite(write_jsonl(folder / "cases.jsonl", rows))


def test_a_question_of_the_evaluation_in_training_is_a_leak(tmp_path: Path) -> None:
    rows = [
        turns("user", "Pay 5  EUR", "assistant", "x"),
        turns("user", "b", "assistant", "y", "user", "Hi", "assistant", "z"),
    ]
    dataset = load_conversations(write_jsonl(tmp_path / "train.jsonl", rows))
    hi = turns("user", "Hi")["messages"]
    later = turns("user", "b", "assistant", "y", "user", "hi")["messages"]
    with pytest.raises(DataLeak) as caught:
        refuse_leaks(dataset, asked(tmp_path, turns("user", "pay 5 eur ")["messages"], hi, later))
    assert [str(fault) for fault in caught.value.faults] == [
        "cases.jsonl:1: the same question stands in train.jsonl:1",
        "cases.jsonl:3: the same question stands in train.jsonl:2",
    ]
    refuse_leaks(dataset, asked(tmp_path, hi))


def test_cases_are_read_with_everything(tmp_path: Path) -> None:
    suite = load_suite(write_jsonl(tmp_path / "cases.jsonl", [case(1), case(2)]))
    assert [one.id for one in suite.rows] == ["case-1", "case-2"]
    assert suite.rows[0].facts == {"amount": "1.50"}
    assert suite.rows[1].tags == ("even",)


def test_every_fault_of_a_case_is_listed(tmp_path: Path) -> None:
    good = case(1)
    rows = [
        good,
        {**case(2), "id": "case-1"},
        {**case(3), "facts": {"amount": 3}},
        {**case(4), "expect": {"type": "objekt"}},
        {**case(5), "messages": conversation(5)["messages"]},
        {**case(6), "answer": 3},
        {**case(7), "tag": []},
        {**case(8), "expect": {"$ref": "https://example.org/schema.json"}},
        {**case(9), "tags": "x"},
    ]
    found = faults(tmp_path / "cases.jsonl", "\n".join(json.dumps(row) for row in rows))
    text = {int(fault.split(":")[1]): fault.split(": ", 1)[1] for fault in found}
    assert set(text) == set(range(2, 10))
    assert text[2] == "the id 'case-1' stands on line 1 already"
    assert text[3] == "facts must map names to text"
    assert text[4].startswith("expect is not a JSON Schema")
    assert text[5] == "messages must end with the user's question"
    assert text[6] == "answer must be text"
    assert text[7] == "'tag' is not a known key; did you mean tags?"
    assert text[8] == "expect points outside itself (https://example.org/schema.json)"
    assert text[9] == "tags must be a list of text"


def test_a_case_asks_for_something_unless_a_verifier_does(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "cases.jsonl", [case(1), {"messages": case(2)["messages"]}])
    with pytest.raises(DataInvalid, match=r"cases.jsonl:2: asks for nothing: give facts, expect, answer"):
        load_suite(path)
    assert len(load_suite(path, verified=True).rows) == 2


def test_faults_read_well_in_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("1\n2\n")
    with pytest.raises(FileFaulty) as caught:
        load_conversations(path)
    assert caught.value.message.splitlines()[0] == "train.jsonl has 2 faults"


def test_many_faults_are_counted_and_the_first_fifty_shown(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("1\n" * 1000)
    with pytest.raises(DataInvalid) as caught:
        load_conversations(path)
    shown = caught.value.message.splitlines()
    assert shown[0] == "train.jsonl has 1000 faults"
    assert (len(shown), shown[-1]) == (52, "and 950 more")
    assert len(caught.value.faults) == 1000
