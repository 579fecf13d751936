"""Adapters that cannot be mistaken for each other: seeded, large, as PEFT writes them, without torch."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from registry.bases import TARGETS
from registry.tensors import read_header

RANK: Final = 8
ALPHA: Final = 16
_EFFECT: Final = 1.0
"""Size of an update beside the weight it changes. On the demo base the first tokens of two such adapters lie
0.25 to 1.9 nats apart by this suite's measure; a third of it leaves 0.19, three times as much only babble."""
_TARGETS: Final = ("q_proj", "v_proj", "down_proj")
Tensors = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Shapes:
    """The layers of a base that adapters are made for: name -> (out, in), as the weights' headers say."""

    modules: Mapping[str, tuple[int, int]]
    base: str = "base"
    """What adapter_config.json calls the base: some loaders compare it with their own."""

    @classmethod
    def of(cls, base: Path) -> "Shapes":
        """Raises AdapterTensorsMalformed, and OSError; ValueError when there is no layer to target."""
        found: dict[str, tuple[int, int]] = {}
        for path in sorted(base.glob("*.safetensors")):
            for name, info in read_header(path).items():
                module = name.removesuffix(".weight")
                if module.rpartition(".")[2] in TARGETS and len(info.shape) == 2:
                    found[module] = (info.shape[0], info.shape[1])
        if not found:
            raise ValueError(f"{base} has no weights in safetensors with layers that a LoRA can target")
        return cls(found, str(base))


def write(folder: Path, shapes: Shapes, *, seed: int, size: float = 1.0) -> Path:
    """One adapter, decided by ``seed``. ``size`` multiplies it: 0 has no effect, 1e20 is what D12 means."""
    return _write(folder, shapes, _tensors(shapes, seed, size))


def write_not_finite(folder: Path, shapes: Shapes, *, seed: int) -> Path:
    tensors = _tensors(shapes, seed, 1.0)
    for name in tensors:
        if name.endswith("lora_B.weight"):
            tensors[name][0, 0] = np.nan
    return _write(folder, shapes, tensors)


def write_other_layers(folder: Path, shapes: Shapes, *, seed: int) -> Path:
    """For layers that the base does not have, as one trained on a deeper base."""
    tensors = _tensors(shapes, seed, 1.0)
    moved = {name.replace(".layers.", ".layers.9"): each for name, each in tensors.items()}
    return _write(folder, shapes, moved)


def write_other_width(folder: Path, shapes: Shapes, *, seed: int) -> Path:
    """As one trained on a narrower base."""
    narrow = {name: (max(out // 2, 1), max(into // 2, 1)) for name, (out, into) in shapes.modules.items()}
    return _write(folder, shapes, _tensors(Shapes(narrow), seed, 1.0))


def replace(folder: Path, other: Path) -> None:
    """Put the files of ``other`` into ``folder``, as an update in place does."""
    for path in sorted(other.iterdir()):
        target = folder / path.name
        target.unlink(missing_ok=True)
        shutil.copyfile(path, target)


def _tensors(shapes: Shapes, seed: int, size: float) -> Tensors:
    random = np.random.default_rng(seed)
    tensors: Tensors = {}
    for module, (out, into) in sorted(shapes.modules.items()):
        if module.rpartition(".")[2] not in _TARGETS:
            continue
        # A keeps the size of its input, and B then decides how large the update is beside a weight of the
        # usual scale, 1 / sqrt(in).
        a = random.normal(0, into**-0.5, (RANK, into))
        b = random.normal(0, size * _EFFECT * RANK**0.5 / ALPHA, (out, RANK))
        with np.errstate(over="ignore"):
            tensors[f"base_model.model.{module}.lora_A.weight"] = a.astype(np.float32)
            tensors[f"base_model.model.{module}.lora_B.weight"] = b.astype(np.float32)
    return tensors


def _write(folder: Path, shapes: Shapes, tensors: Tensors) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": shapes.base,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "target_modules": list(_TARGETS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in sorted(tensors.items()):
        span = [offset, offset + tensor.nbytes]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": span}
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in sorted(tensors.items()):
            file.write(tensor.tobytes())
    return folder
