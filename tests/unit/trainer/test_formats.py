"""JSON Lines, CSV and Parquet: the same rows from each, and what goes wrong in each with its line."""

import json
import resource
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from registry.digests import Digest
from tests.support.tiny_model import write_jsonl
from trainer.datasets import Shape, load_rows, locate
from trainer.datasets.formats.physical import MAX_LINE
from trainer.errors import DataInvalid, FormatUnknown

GOOD = {"prompt": "a", "completion": "b"}


def faults(path: Path, content: bytes | str, shape: Shape = "conversations") -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataInvalid) as caught:
        load_rows(path, shape=shape)
    return [str(fault) for fault in caught.value.faults]


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_three_formats_give_the_same_rows(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": 'Say "a, b"\nin two lines'},
        {"role": "assistant", "content": "Zoë; 北京"},
    ]
    rows: list[dict[str, Any]] = [{"messages": messages, "tags": ["intent:x", "branch:y"], "weight": 1.5}] * 3
    quoted = [json.dumps(cell, ensure_ascii=False).replace('"', '""') for cell in (messages, rows[0]["tags"])]
    table = "messages,tags,weight\n" + f'"{quoted[0]}","{quoted[1]}",1.5\n' * 3
    (tmp_path / "rows.csv").write_text(table, encoding="utf-8")
    paths = [
        write_jsonl(tmp_path / "rows.jsonl", rows),
        tmp_path / "rows.csv",
        parquet(tmp_path / "rows.parquet", rows),
    ]
    lines, csv, columnar = (load_rows(path, shape="conversations") for path in paths)
    assert [row.messages for row in lines.rows] == [row.messages for row in csv.rows]
    assert [(row.messages, row.tags, row.weight) for row in lines.rows] == [
        (row.messages, row.tags, row.weight) for row in columnar.rows
    ]
    assert [row.line for row in csv.rows] == [2, 3, 4]
    assert [row.line for row in columnar.rows] == [1, 2, 3]
    assert csv.digest == Digest.of_file(paths[1])


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.xlsx", "rows.jsonl.gz"])
def test_an_unknown_format_says_which_are_known(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatUnknown, match=r"\.jsonl, .*\.csv, .*\.parquet"):
        load_rows(tmp_path / name, shape="conversations")


def test_a_line_of_100_mb_is_refused_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as stream:
        stream.write(json.dumps(GOOD).encode() + b"\n")
        for _ in range(100):
            stream.write(b"x" * (1 << 20))
        stream.write(b"\n" + json.dumps(GOOD).encode() + b"\nnonsense\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataInvalid) as caught:
        load_rows(path, shape="conversations")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert [fault.where for fault in caught.value.faults] == ["rows.jsonl:2", "rows.jsonl:4"]
    assert caught.value.faults[0].what == "is longer than 8 MiB: one row a line"
    assert grown < 4 * MAX_LINE


def test_the_longest_line_is_read(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "a", "completion": ""})
    text = row[:-2] + "x" * (MAX_LINE - len(row) - 1) + row[-2:] + "\n"
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    assert len(load_rows(path, shape="conversations").rows) == 1
    assert "longer" in faults(path, " " + text)[0]


def test_marks_of_other_encodings(tmp_path: Path) -> None:
    line = json.dumps(GOOD).encode()
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n")
    assert len(load_rows(path, shape="conversations").rows) == 1
    assert faults(path, json.dumps(GOOD).encode("utf-16")) == [
        "rows.jsonl:1: is UTF-16: save the file as UTF-8"
    ]
    assert faults(path, "[\n" + json.dumps(GOOD) + "\n]") == [
        "rows.jsonl:1: begins a JSON array: write one object a line (JSON Lines)"
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_an_empty_file_is_a_fault(tmp_path: Path, name: str) -> None:
    assert faults(tmp_path / name, "") == [f"{name}: is empty"]


def test_a_csv_keeps_the_lines_of_its_rows_across_quoted_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,completion\r\n"two\r\nlines",a\r\nb,"three\n\n""lines"""\r\nc,d')
    rows = load_rows(path, shape="conversations").rows
    assert [row.line for row in rows] == [2, 4, 7]
    assert rows[0].messages[0].content == "two\r\nlines"
    assert rows[1].messages[1].content == 'three\n\n"lines"'


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheets_delimit_differently(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f'"prompt"{delimiter}completion\n"1,5; 2"{delimiter}b\n')
    (row,) = load_rows(path, shape="conversations").rows
    assert row.messages[0].content == "1,5; 2"


def test_every_fault_of_a_csv_names_its_line(tmp_path: Path) -> None:
    table = (
        b"prompt,completion,weight,tags\n"
        b"a,b,,intent:x;branch:y\n"
        b"a,b\n"
        b'"two\nlines",b,1,,,\n'
        b"\n"
        b"a,\xff,1,\n"
        b"a,,1,\n"
        b"a,b,heavy,\n"
        b'a,"b"c,1,\n'
        b"a,b,nan,\n"
        b'a,"never closed,1,\n'
        b"a,b,1,\n"
    )
    assert faults(tmp_path / "rows.csv", table) == [
        "rows.csv:3: has 2 cells, the header has 4",
        "rows.csv:4: has 6 cells, the header has 4",
        "rows.csv:6: is an empty line",
        "rows.csv:7: is not UTF-8 (byte 3): save the file as UTF-8",
        "rows.csv:8: completion is empty, and teaches to say nothing: write the answer or delete the row",
        "rows.csv:9: weight must be a number",
        'rows.csv:10: has text after a closing quote: inside quotes, write "" for "',
        "rows.csv:11: weight must be a number above 0, at most 100",
        "rows.csv:12: opens a quote that is never closed",
    ]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("prompt,prompt", "names the column 'prompt' twice"),
        ("prompt,,completion", "must name every column"),
        ("question,answer", "name them with data.columns: {answer: completion, question: prompt}"),
    ],
)
def test_a_csv_header_is_checked(tmp_path: Path, header: str, says: str) -> None:
    cells = ",".join("x" for _ in header.split(","))
    (only,) = faults(tmp_path / "rows.csv", f"{header}\n{cells}\n")
    assert says in only


def test_a_header_alone_is_no_data(tmp_path: Path) -> None:
    assert faults(tmp_path / "rows.csv", "prompt,completion\n") == ["rows.csv: has no rows"]


def test_json_in_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('prompt,chosen,rejected\n"[{""role"":""user"",""content"":""a""}]",[1],"[""x""]"\n')
    (pair,) = load_rows(path, shape="pairs").rows
    assert (pair.prompt[0].content, pair.chosen, pair.rejected) == ("a", "[1]", '["x"]')
    assert faults(tmp_path / "c.csv", "messages\n[{\n") == ["c.csv:2: messages must be JSON in its cell"]


def test_a_cell_may_be_longer_than_the_modules_own_limit(tmp_path: Path) -> None:
    import csv

    path = tmp_path / "rows.csv"
    path.write_text(f"prompt,completion\n{'x' * 200_000},b\n")
    before = csv.field_size_limit()
    assert len(load_rows(path, shape="conversations").rows) == 1
    assert csv.field_size_limit() == before


def test_nothing_in_a_parquet_cell_is_a_fault_of_its_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "completion": "b", "weight": 1.0},
        {"prompt": None, "completion": "b", "weight": None},
        {"prompt": "a", "completion": None, "weight": 2.0},
        {"prompt": "a", "completion": "b", "weight": float("nan")},
    ]
    path = parquet(tmp_path / "rows.parquet", rows)
    with pytest.raises(DataInvalid) as caught:
        load_rows(path, shape="conversations")
    assert [str(fault) for fault in caught.value.faults] == [
        "rows.parquet:2: prompt is missing",
        "rows.parquet:3: completion is missing",
        "rows.parquet:4: contains a number that is not finite (NaN, or too large)",
    ]


def test_what_a_struct_of_another_row_has_is_not_in_this_one(tmp_path: Path) -> None:
    call = {"function": {"name": "rate", "arguments": {"to": "USD"}}}
    tool = {"function": {"name": "rate"}}
    rows: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "content": "2", "name": "rate"},
                {"role": "assistant", "content": "b"},
            ],
            "tools": [tool],
        },
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    columnar = load_rows(parquet(tmp_path / "rows.parquet", rows), shape="conversations").rows
    assert columnar == load_rows(write_jsonl(tmp_path / "rows.jsonl", rows), shape="conversations").rows


def test_what_is_not_parquet_says_so(tmp_path: Path) -> None:
    (only,) = faults(tmp_path / "rows.parquet", b"prompt,completion\na,b\n")
    assert only.startswith("rows.parquet: is not Parquet that can be read")
    whole = parquet(tmp_path / "whole.parquet", [GOOD]).read_bytes()
    (only,) = faults(tmp_path / "rows.parquet", whole[: len(whole) // 2])
    assert only.startswith("rows.parquet: is not Parquet that can be read")


def test_a_date_is_not_text(tmp_path: Path) -> None:
    import datetime

    day = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    with pytest.raises(DataInvalid, match=r"rows.parquet:1: contains a datetime: write it as text"):
        load_rows(parquet(tmp_path / "rows.parquet", [{**GOOD, "when": day}]), shape="conversations")


@pytest.mark.parametrize("name", [".", "..", ""])
def test_a_folder_is_named_as_one(name: str) -> None:
    with pytest.raises(FormatUnknown, match=r"^(a folder|\.\.) is none of \.jsonl"):
        load_rows(locate(Path("recipe.yaml"), name), shape="conversations")
