import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import AdapterTensorsMalformed
from registry.tensors import read_header, read_tensor

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "F64": 8}
shapes = st.lists(st.integers(0, 4), max_size=3)
layouts = st.dictionaries(
    st.text(max_size=12).filter("__metadata__".__ne__),
    st.tuples(st.sampled_from(sorted(SIZES)), shapes),
    max_size=6,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One path for all examples: each overwrites it."""
    return tmp_path_factory.mktemp("tensors") / "x.safetensors"


def encode(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data


def build(layout: dict[str, tuple[str, list[int]]]) -> tuple[dict[str, Any], int]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in layout.items():
        begin, end = end, end + math.prod(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    return header, end


def accepts(file: Path, data: bytes) -> bool:
    """Whether the bytes are accepted; any error but AdapterTensorsMalformed fails the test."""
    file.write_bytes(data)
    try:
        for info in read_header(file).values():
            read_tensor(file, info)
    except AdapterTensorsMalformed:
        return False
    return True


@given(layout=layouts, filler=st.integers(0, 255))
def test_every_well_formed_file_is_read(
    file: Path, layout: dict[str, tuple[str, list[int]]], filler: int
) -> None:
    header, size = build(layout)
    file.write_bytes(encode(header, bytes([filler]) * size))
    found = read_header(file)
    assert {name: (info.dtype, list(info.shape)) for name, info in found.items()} == layout
    assert sum(info.end - info.begin for info in found.values()) == size
    for info in found.values():
        if info.dtype in ("F32", "F16", "BF16"):
            tensor = read_tensor(file, info)
            assert tensor.shape == info.shape
            assert tensor.dtype == np.float32


@given(
    data=st.binary(max_size=300)
    | st.binary(max_size=80).map(lambda rest: len(rest).to_bytes(8, "little") + rest)
)
def test_arbitrary_bytes(file: Path, data: bytes) -> None:
    accepts(file, data)


@given(
    header=json_values | st.dictionaries(st.text(max_size=4), json_values, max_size=3),
    data=st.binary(max_size=16),
)
def test_arbitrary_headers(file: Path, header: Any, data: bytes) -> None:
    accepts(file, encode(header, data))


@given(
    entry=st.fixed_dictionaries({
        "dtype": st.sampled_from(sorted(SIZES)) | json_values,
        "shape": st.lists(st.integers(-2, 2**70), max_size=20) | json_values,
        "data_offsets": st.lists(st.integers(-2, 2**70), max_size=3) | json_values,
    })
)  # fmt: skip
def test_arbitrary_entries(file: Path, entry: dict[str, Any]) -> None:
    accepts(file, encode({"a": entry}, b"1234"))


@given(
    layout=layouts,
    changes=st.lists(st.tuples(st.integers(min_value=0), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_mutated_files(
    file: Path, layout: dict[str, tuple[str, list[int]]], changes: list[tuple[int, int]]
) -> None:
    header, size = build(layout)
    data = bytearray(encode(header, bytes(size)))
    for at, byte in changes:
        data[at % len(data)] = byte
    accepts(file, bytes(data))


@given(layout=layouts, cut=st.integers(min_value=1))
def test_a_shortened_or_lengthened_file_is_refused(
    file: Path, layout: dict[str, tuple[str, list[int]]], cut: int
) -> None:
    header, size = build(layout)
    data = encode(header, bytes(size))
    assert accepts(file, data[: -(cut % len(data)) or None]) is (
        cut % len(data) == 0 and all(dtype in ("F32", "F16", "BF16") for dtype, _ in layout.values())
    )
    assert not accepts(file, data + b"\0")
