"""An adapter that changes nothing: how to ask the bare base on an engine that has D1."""

import json
import struct
from collections.abc import Mapping

from registry.intake import CONFIG, WEIGHTS
from registry.models import Base

_MODULE = "q_proj"


def null_adapter(base: Base) -> Mapping[str, bytes]:
    """PEFT's two files of a rank-1 adapter whose every B is zero, so that B @ A is zero whatever A is."""
    modules = [name for name in sorted(base.modules) if name.rpartition(".")[2] == _MODULE] or [
        min(base.modules)
    ]
    shapes = {}
    for name in modules:
        out, into = base.modules[name]
        shapes[f"base_model.model.{name}.lora_A.weight"] = (1, into)
        shapes[f"base_model.model.{name}.lora_B.weight"] = (out, 1)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": 1,
        "lora_alpha": 1,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name in modules}),
    }
    return {CONFIG: json.dumps(config, sort_keys=True).encode(), WEIGHTS: _zeros(shapes)}


def _zeros(shapes: Mapping[str, tuple[int, int]]) -> bytes:
    """A safetensors file of float32 zeros."""
    header: dict[str, object] = {}
    end = 0
    for name, (rows, columns) in sorted(shapes.items()):
        begin, end = end, end + 4 * rows * columns
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + bytes(end)
