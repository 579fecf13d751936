"""Safetensors files without torch and without trust.

A file is: u64 little-endian header length, a JSON header, the data. The public parser accepts a few things
that a hostile file can use (holes hide data, duplicate names mean different tensors to different readers),
so this one accepts exactly one layout: every byte of the data belongs to exactly one tensor.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from registry import canonical
from registry.errors import AdapterTensorsMalformed, InvalidDocument

MAX_HEADER = 16 << 20
"""Bytes. A 400-layer adapter with long names needs about 1 MiB."""
MAX_DIMENSIONS = 16

_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes per element, of the types that the format documents (sub-byte ones are refused as unknown)."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """First byte of its data, counted from the start of the *file*."""
    end: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """All tensors by name, in the order of their data. Raises AdapterTensorsMalformed, and OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise AdapterTensorsMalformed("the file ends inside its header")
        if length > MAX_HEADER:
            raise AdapterTensorsMalformed(f"the header has {length} bytes, {MAX_HEADER} are allowed")
        header = _decode(file.read(length))
    start = 8 + length
    infos = [_info(name, value, start) for name, value in header.items() if name != "__metadata__"]
    infos.sort(key=lambda info: (info.begin, info.end))
    position = start
    for info in infos:
        if info.begin != position:
            what = "overlaps the tensor before it" if info.begin < position else "has unused bytes before it"
            raise AdapterTensorsMalformed(f"{_quoted(info.name)} {what}")
        position = info.end
    if position != size:
        what = "ends inside its data" if position > size else "goes on after its last tensor"
        raise AdapterTensorsMalformed(f"the file {what}")
    return {info.name: info for info in infos}


def read_tensor(path: Path, info: TensorInfo) -> npt.NDArray[np.float32]:
    """The tensor as float32; F32, F16 and BF16 only. Raises AdapterTensorsMalformed, and OSError.

    Read, not mapped: a file that is cut while it is mapped would kill the process.
    """
    if info.dtype not in ("F32", "F16", "BF16"):
        raise AdapterTensorsMalformed(f"{_quoted(info.name)} is {info.dtype}: weights are F32, F16 or BF16")
    with path.open("rb") as file:
        data = _exactly(file, info)
    if info.dtype == "BF16":  # the upper half of a float32
        widened = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
        return widened.view(np.float32).reshape(info.shape)
    stored = np.frombuffer(data, dtype="<f4" if info.dtype == "F32" else "<f2")
    return stored.astype(np.float32).reshape(info.shape)


def _exactly(file: BinaryIO, info: TensorInfo) -> bytes:
    file.seek(info.begin)
    data = file.read(info.end - info.begin)
    if len(data) != info.end - info.begin:
        raise AdapterTensorsMalformed(f"the file ends inside {_quoted(info.name)}")
    return data


def _decode(data: bytes) -> dict[str, Any]:
    if not data.startswith(b"{"):
        raise AdapterTensorsMalformed("the header is not a JSON object")
    try:
        header = canonical.decode(data)
    except InvalidDocument as error:
        raise AdapterTensorsMalformed(f"the header is {error.message}") from None
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterTensorsMalformed("the header's __metadata__ is not a map of texts")
    result: dict[str, Any] = header
    return result


def _info(name: str, value: Any, start: int) -> TensorInfo:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise AdapterTensorsMalformed(f"{_quoted(name)} needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise AdapterTensorsMalformed(f"{_quoted(name)} has the unknown dtype {_quoted(dtype)}")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise AdapterTensorsMalformed(f"{_quoted(name)} has no valid shape")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise AdapterTensorsMalformed(f"{_quoted(name)} has no valid data_offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * _SIZES[dtype]:
        raise AdapterTensorsMalformed(f"{_quoted(name)} has {end - begin} bytes, not those of its shape")
    return TensorInfo(name=name, dtype=dtype, shape=tuple(shape), begin=start + begin, end=start + end)


def _naturals(value: Any) -> bool:
    """A list of whole numbers below 2**63 (``true`` is not one); beyond that they cannot be real."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _quoted(value: Any) -> str:
    """Text out of the file, for a message: short and escaped."""
    return ascii(value if isinstance(value, str) else type(value).__name__)[:160]
