"""Each shape that methods learn from, and the traps in each: every one names its line and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_model import write_jsonl
from trainer.datasets import Conversation, Labelled, Pair, Shape, Steps, load_rows
from trainer.errors import DataInvalid

CALL = {"type": "function", "id": "a", "function": {"name": "rate", "arguments": {"to": "USD"}}}
TOOL = {"type": "function", "function": {"name": "rate", "parameters": {"type": "object"}}}


def user(text: str = "How many USD?") -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str = "Two.", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def result(text: str = "2", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": text, **more}


def calls(*made: dict[str, Any]) -> dict[str, Any]:
    return says("", tool_calls=list(made or (CALL,)))


def read(folder: Path, shape: Shape, *rows: dict[str, Any]) -> tuple[Any, ...]:
    return load_rows(write_jsonl(folder / "rows.jsonl", list(rows)), shape=shape).rows


def fault(folder: Path, shape: Shape, row: dict[str, Any]) -> str:
    good: dict[Shape, dict[str, Any]] = {
        "conversations": {"messages": [user(), says()]},
        "pairs": {"prompt": "a", "chosen": "b", "rejected": "c"},
        "labelled": {"prompt": "a", "completion": "b", "label": True},
        "steps": {"prompt": "a", "completions": ["b"], "labels": [True]},
        "cases": {"prompt": "a", "answer": "b"},
    }
    with pytest.raises(DataInvalid) as caught:
        read(folder, shape, good[shape], row)
    (only,) = caught.value.faults
    where, _, what = str(only).partition(": ")
    assert where == "rows.jsonl:2"
    return what


@pytest.mark.parametrize(
    ("row", "says_"),
    [
        ([user(), calls(), user("x")], "expected tool (a tool call without its result: add a tool message"),
        ([user(), calls(), says()], "expected tool (a tool call without its result: add a tool message"),
        ([user(), result(), says()], "expected assistant (a result without a call: give the assistant"),
        ([user(), calls(), result(), result(), says()], "a result without a call"),
        ([user(), calls(), result()], "must end with the assistant's answer, not with tool: add what the"),
        ([user(), calls(CALL, CALL), result(), says()], "expected tool (a tool call without its result"),
        ([user(), calls(), result(name="ledger"), says()], "is the result of 'ledger', expected that of"),
        ([user(), calls(), result(tool_call_id="b"), says()], "tool_call_id is 'b', expected 'a'"),
        ([user(), says(" ")], "messages[1].content is empty, and teaches to say nothing: write"),
        ([{"role": "human", "content": "a"}, says()], "messages[0].role must be one of system, user, assis"),
        ([{"role": "human", "content": "a"}, says()], "did you mean user?"),
        ([{"from": "human", "value": "a"}, says()], "ShareGPT): write role (user, assistant) and content"),
        ([user(), {"role": "system", "content": "a"}, says()], "a system message stands first or not at all"),
        ([says()], "messages[0].role is assistant, expected user"),
        ([user()], "must end with the assistant's answer, not with user: add it, or delete the row"),
        ([user(), says(tool_calls=[{"name": 3}])], "tool_calls[0] must be a function with"),
        (
            [user(), says(tool_calls=[{"name": "rate", "arguments": "{"}]), result(), says()],
            "tool_calls[0].arguments is text, but not JSON",
        ),
        ([user(), says(tool_calls=[])], "tool_calls must be a list with at least one call"),
        ([{**user(), "tool_calls": [CALL]}, says()], "tool_calls belongs to an assistant message"),
        ([], "messages must be a list with at least one message"),
    ],
)  # fmt: skip
def test_a_wrong_conversation_says_what_to_do(tmp_path: Path, row: list[Any], says_: str) -> None:
    assert says_ in fault(tmp_path, "conversations", {"messages": row, "tools": [TOOL]})


@pytest.mark.parametrize(
    ("more", "says_"),
    [
        ({}, "calls tools, so tools must define them"),
        ({"tools": [{"function": {"name": "ledger"}}]}, "calls 'rate', which tools does not define"),
        ({"tools": "rate"}, "tools must be a list of function definitions"),
        ({"tools": [TOOL], "weight": 0}, "weight must be a number above 0, at most 100"),
        ({"tools": [TOOL], "weight": True}, "weight must be a number above 0, at most 100"),
        ({"tools": [TOOL], "tags": ["a", 1]}, "tags must be a list of text"),
        ({"tools": [TOOL], "prompt": "a"}, "give messages, or prompt and completion, not both"),
    ],
)
def test_what_stands_beside_the_messages_is_checked(tmp_path: Path, more: dict[str, Any], says_: str) -> None:
    row = {"messages": [user(), calls(), result(), says()], **more}
    assert says_ in fault(tmp_path, "conversations", row)


def test_a_trajectory_keeps_its_calls_and_results(tmp_path: Path) -> None:
    both = [{**CALL, "id": "a"}, {**CALL, "id": "b"}]
    messages = [user(), calls(*both), result(tool_call_id="a"), result("3", tool_call_id="b"), says()]
    (row,) = read(tmp_path, "conversations", {"messages": messages, "tools": [TOOL], "weight": 2})
    assert isinstance(row, Conversation)
    assert row.weight == 2.0
    learned = [example.answer for example in row.examples()]
    assert [len(answer.tool_calls) for answer in learned] == [2, 0]
    assert json.loads(learned[0].tool_calls[0].arguments) == {"to": "USD"}


def test_prompt_and_completion_are_a_conversation(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "conversations", {"prompt": "a", "completion": "b", "system": "s"})
    assert [(message.role, message.content) for message in row.messages] == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
    ]


def test_pairs_come_with_or_without_a_prompt_column(tmp_path: Path) -> None:
    whole = {"chosen": [user("a"), says("b")], "rejected": [user("a"), says("c")]}
    first, second = read(tmp_path, "pairs", {"prompt": "a", "chosen": "b", "rejected": "c"}, whole)
    assert isinstance(first, Pair)
    assert (first.prompt, first.chosen, first.rejected) == (second.prompt, second.chosen, second.rejected)


@pytest.mark.parametrize(
    ("shape", "row", "says_"),
    [
        ("pairs", {"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ("pairs", {"prompt": "a", "chosen": " ", "rejected": "b"}, "chosen is empty, and teaches to"),
        ("pairs", {"prompt": "", "chosen": "a", "rejected": "b"}, "prompt is empty"),
        ("pairs", {"prompt": [says()], "chosen": "a", "rejected": "b"}, "prompt[0].role is assistant"),
        ("labelled", {"prompt": "a", "completion": "b", "label": "maybe"}, "label must be true or false"),
        ("labelled", {"prompt": "a", "completion": "b", "label": 2}, "label must be true or false"),
        ("steps", {"prompt": "a", "completions": ["b", "c"], "labels": [1]}, "2 completions have 1 labels"),
        ("steps", {"prompt": "a", "completions": ["b", " "], "labels": [1, 0]}, "steps, none empty"),
        ("steps", {"prompt": "a", "completions": ["b"], "labels": ["x"]}, "labels must be a list of true"),
        ("cases", {"prompt": "a", "facts": {"amount": 3}}, "facts must map names to text"),
        ("cases", {"messages": [user(), says()]}, "messages must end with the user's question"),
    ],
)  # fmt: skip
def test_the_other_shapes_are_checked_too(
    tmp_path: Path, shape: Shape, row: dict[str, Any], says_: str
) -> None:
    assert says_ in fault(tmp_path, shape, row)


def test_labels_are_read_as_files_write_them(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b", "label": label} for label in (True, 0, "TRUE", "0", 1.0)]
    read_rows = read(tmp_path, "labelled", *rows)
    assert all(isinstance(row, Labelled) for row in read_rows)
    assert [row.label for row in read_rows] == [True, False, True, False, True]
    (steps,) = read(tmp_path, "steps", {"prompt": "a", "completions": ["b", "c"], "labels": [True, 0]})
    assert isinstance(steps, Steps)
    assert steps.labels == (True, False)
