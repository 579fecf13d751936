"""The safetensors parser: one layout is accepted, everything else is named and refused."""

from pathlib import Path

import numpy as np
import pytest

from registry import tensors
from registry.errors import AdapterTensorsMalformed


def write(path: Path, header: str | bytes, data: bytes = b"") -> Path:
    text = header.encode() if isinstance(header, str) else header
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def one(dtype: str = "F32", shape: str = "[1]", offsets: str = "[0,4]", name: str = "a") -> str:
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{" + one(offsets="[0,8]") + "}", "bytes, not those of its shape"),
        ("{" + one(shape="[2]") + "}", "bytes, not those of its shape"),
        ("{" + one(shape="[-1]") + "}", "no valid shape"),
        ("{" + one(shape="[true]") + "}", "no valid shape"),
        ("{" + one(shape="[1.0]") + "}", "no valid shape"),
        ("{" + one(shape="[9223372036854775808,0]", offsets="[0,0]") + "}", "no valid shape"),
        ("{" + one(shape=str([1] * 17)) + "}", "no valid shape"),
        ("{" + one(offsets="[4,0]") + "}", "no valid data_offsets"),
        ("{" + one(offsets="[0,4,8]") + "}", "no valid data_offsets"),
        ("{" + one(dtype="F31") + "}", "unknown dtype"),
        ("{" + one(dtype="F4") + "}", "unknown dtype"),
        ("{" + one() + "," + one() + "}", "appears twice"),
        ("{" + one() + "," + one(name="b") + "}", "overlaps"),
        ("{" + one() + "," + one(name="b", offsets="[8,12]") + "}", "unused bytes"),
        ("{" + one(offsets="[4,8]") + "}", "unused bytes"),
        ("{" + one() + "," + one(name="b", offsets="[4,8]") + "}", "ends inside its data"),
        ("{}", "goes on"),
        ('{"a":{"dtype":"F32","shape":[1]}}', "needs exactly"),
        ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}', "needs exactly"),
        ('{"a":7}', "needs exactly"),
        ('{"__metadata__":{"x":1},' + one() + "}", "__metadata__"),
        ('{"__metadata__":[],' + one() + "}", "__metadata__"),
        (" {" + one() + "}", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("", "not a JSON object"),
        (b"{\xff}", "not valid JSON"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, header: str | bytes, message: str) -> None:
    with pytest.raises(AdapterTensorsMalformed, match=message):
        tensors.read_header(write(tmp_path / "x", header, b"1234"))


def test_a_header_that_is_longer_than_allowed(tmp_path: Path) -> None:
    with pytest.raises(AdapterTensorsMalformed, match="allowed"):
        tensors.read_header(write(tmp_path / "x", "{" + " " * tensors.MAX_HEADER + "}"))
    (tmp_path / "y").write_bytes(b"\xff" * 8 + b"{}")
    with pytest.raises(AdapterTensorsMalformed, match="inside its header"):
        tensors.read_header(tmp_path / "y")


def test_types_and_empty_tensors_are_read(tmp_path: Path) -> None:
    data = np.array([1.5], "<f4").tobytes() + np.array([-2.5], "<f2").tobytes() + b"\x80\x3f\xc0\x7f"
    header = "{" + ",".join([
        one("BF16", "[2]", "[6,10]", "b"), one("F32", "[1]", "[0,4]", "f"), one("F16", "[1]", "[4,6]", "h"),
        one("F32", "[0,3]", "[4,4]", "e"), one("I64", "[0]", "[10,10]", "i"),
    ]) + "}   "  # fmt: skip
    path = write(tmp_path / "x", header, data)
    found = tensors.read_header(path)
    assert list(found) == ["f", "e", "h", "b", "i"]
    assert tensors.read_tensor(path, found["f"]).tolist() == [1.5]
    assert tensors.read_tensor(path, found["h"]).tolist() == [-2.5]
    one_and_nan = tensors.read_tensor(path, found["b"])
    assert one_and_nan.dtype == np.float32
    assert one_and_nan[0] == 1.0
    assert np.isnan(one_and_nan[1])
    assert tensors.read_tensor(path, found["e"]).shape == (0, 3)
    with pytest.raises(AdapterTensorsMalformed, match="I64"):
        tensors.read_tensor(path, found["i"])


def test_a_file_that_is_cut_between_header_and_data(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "{" + one() + "}", b"1234")
    info = tensors.read_header(path)["a"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AdapterTensorsMalformed, match="ends inside"):
        tensors.read_tensor(path, info)
