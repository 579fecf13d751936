"""A file's own column names: renamed when told, explained when not, dropped only when asked."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_model import write_jsonl
from trainer.datasets import Shape, load_rows
from trainer.errors import DataInvalid

QA = [{"question": f"q{number}", "answer": f"a{number}"} for number in range(3)]


def faults(path: Path, shape: Shape, columns: dict[str, str | None] | None = None) -> list[str]:
    with pytest.raises(DataInvalid) as caught:
        load_rows(path, shape=shape, columns=columns)
    return [str(fault) for fault in caught.value.faults]


def test_missing_columns_are_told_once_with_what_to_write(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "qa.jsonl", QA)
    assert faults(path, "conversations") == [
        (
            "qa.jsonl: has the columns question, answer, and conversations need messages, or prompt and "
            "completion; name them with data.columns: {answer: completion, question: prompt}"
        )
    ]
    named = load_rows(path, shape="conversations", columns={"question": "prompt", "answer": "completion"})
    assert [row.messages[-1].content for row in named.rows] == ["a0", "a1", "a2"]


@pytest.mark.parametrize(
    ("shape", "needs"),
    [
        ("pairs", "pairs need chosen and rejected"),
        ("labelled", "labelled need prompt and completion and label"),
        ("steps", "steps need prompt and completions and labels"),
        ("cases", "cases need messages, or prompt;"),
    ],
)
def test_every_shape_says_what_it_needs(tmp_path: Path, shape: Shape, needs: str) -> None:
    assert needs in faults(write_jsonl(tmp_path / "qa.jsonl", QA), shape)[0]


def test_a_column_that_every_row_has_is_told_once(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "completion": str(number), "when": 1} for number in range(9)
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert faults(path, "conversations") == [
        (
            "rows.jsonl: every row has 'when', where 'when' is not a known key; "
            "name it with data.columns, or drop it: {when: null}"
        )
    ]
    assert len(load_rows(path, shape="conversations", columns={"when": None}).rows) == 9
    assert len(load_rows(path, shape="conversations", columns={"*": None}).rows) == 9


def test_a_column_that_one_row_has_names_its_line(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "a", "completion": "b"}]
    rows.append({"prompt": "a", "completion": "b", "wieght": 2})
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert faults(path, "conversations") == [
        "rows.jsonl:2: 'wieght' is not a known key; did you mean weight?"
    ]


def test_a_mapping_that_fits_the_file_badly_is_a_fault(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b", "question": "c"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert faults(path, "conversations", {"question": "prompt"}) == [
        "rows.jsonl:1: 'prompt' and 'question' are both prompt"
    ]
    mapping: dict[str, str | None] = {"question": None, "quastion": "prompt"}
    assert faults(path, "conversations", mapping) == [
        "rows.jsonl: data.columns names 'quastion', and the columns are prompt, completion, question"
    ]
    assert "did you mean prompt" in faults(path, "conversations", {"question": "prommpt"})[0]
