"""Which bytes may enter the registry as an adapter.

vLLM loads with 200 OK what is wrong (another hidden size, layers that do not exist, NaN), and one such
adapter poisons the answers of every tenant on the engine: so nothing is left for the engine to find.
"""

import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from registry import adapter_config
from registry.adapter_config import AdapterConfig
from registry.bases import TARGETS
from registry.errors import (
    AdapterBaseMismatch,
    AdapterConfigInvalid,
    AdapterFileMissing,
    AdapterFileUnexpected,
    AdapterModuleUnknown,
    AdapterNotFinite,
    AdapterPickle,
    AdapterRankTooHigh,
    AdapterShapeMismatch,
    AdapterTensorsMalformed,
    AdapterTooLarge,
    AdapterUnsupported,
    AdapterZeroEffect,
)
from registry.manifests import LoraShape
from registry.models import Base
from registry.tensors import TensorInfo, read_header, read_tensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG = 1 << 20
"""Bytes; the names of all modules of a 400-layer model are about 100 kB."""
MAX_NORM = 1e4
"""Highest Frobenius norm of A, of B and of scale·|A|·|B| for one module.

A fresh A has about sqrt(rank / 3) (4.6 at rank 64), and a trained update stays below the norm of the weight
it changes, about 80 for 4096 x 4096 at 0.02. So this leaves a hundredfold, and a hidden state of norm 1e3
still ends below 1e7, far from what overflows bfloat16 and float32.
"""

_PICKLES = frozenset({
    ".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".p", ".pickle", ".pkl", ".pt", ".pth",
})  # fmt: skip
"""``.npy`` and ``.npz`` hold pickles when they hold objects."""
_COMPANIONS = frozenset({
    ".gitattributes", "LICENSE", "LICENSE.txt", "README.md", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "generation_config.json", "merges.txt", "special_tokens_map.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
})  # fmt: skip
"""What trainers leave beside an adapter; neither read nor stored."""
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Pair:
    a: TensorInfo
    """(rank, in)"""
    b: TensorInfo
    """(out, rank)"""


def inspect(folder: Path, *, base: Base, max_rank: int | None = 64) -> tuple[LoraShape, tuple[Path, ...]]:
    """(the shape, the files to store sorted by name). ``max_rank`` None: any, where a registry with a
    bound of its own looks again. Raises the IntakeRefused leaf of the first fault.

    Nobody else may write to ``folder`` meanwhile: what is stored must be what was inspected.
    """
    files = adapter_files(folder)
    config = _config(files[CONFIG], base=base, max_rank=max_rank)
    pairs = _pairs(_header(files[WEIGHTS]))
    _check_modules(pairs, base)
    _check_targets(pairs, config, base)
    _check_ranks(pairs, config, max_rank)
    _check_values(files[WEIGHTS], pairs, config)
    shape = LoraShape(
        rank=config.max_rank,
        alpha=config.alpha,
        rslora=config.rslora,
        targets=tuple(sorted({_short(module) for module in pairs})),
    )
    return shape, tuple(files[name] for name in sorted(files))


def adapter_files(folder: Path) -> dict[str, Path]:
    """The two files of an adapter. Judged by names and types only; nothing is opened."""
    if not folder.is_dir():
        raise AdapterFileMissing("the adapter is not a folder")
    found: dict[str, Path] = {}
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        shown = ascii(entry.name)[:80]
        if entry.is_symlink():
            raise AdapterFileUnexpected(f"{shown} is a symbolic link", file=entry.name)
        if entry.is_dir(follow_symlinks=False):
            second = entry.name == "ref"
            hint = "DPO and GRPO leave a second adapter in ref/: delete it" if second else None
            raise AdapterFileUnexpected(f"{shown} is a folder", hint=hint, file=entry.name)
        if Path(entry.name.lower()).suffix in _PICKLES:
            raise AdapterPickle(f"{shown} can hold a pickle", file=entry.name)
        if entry.name not in (CONFIG, WEIGHTS, *_COMPANIONS) or not entry.is_file(follow_symlinks=False):
            raise AdapterFileUnexpected(f"{shown} does not belong to an adapter", file=entry.name)
        if entry.name in (CONFIG, WEIGHTS):
            found[entry.name] = folder / entry.name
    for name in (CONFIG, WEIGHTS):
        if name not in found:
            raise AdapterFileMissing(f"{name} is missing", file=name)
    return found


def _config(path: Path, *, base: Base, max_rank: int | None) -> AdapterConfig:
    with path.open("rb") as file:
        data = file.read(MAX_CONFIG + 1)
    if len(data) > MAX_CONFIG:
        raise AdapterConfigInvalid(f"{CONFIG} is larger than {MAX_CONFIG} bytes")
    config = adapter_config.parse(data, max_rank=max_rank)
    if config.base is not None and config.base != base.identity():
        raise AdapterBaseMismatch(
            f"trained on the base {config.base}, this is {base.identity()} ({base.name})"
        )
    return config


def _header(path: Path) -> dict[str, TensorInfo]:
    try:
        return read_header(path)
    except AdapterTensorsMalformed:
        with path.open("rb") as file:
            start = file.read(4)
        # torch.save writes a zip, pickle.dump starts with its protocol 2 to 5.
        if start == b"PK\x03\x04" or (
            start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
        ):
            raise AdapterPickle(f"{WEIGHTS} is a pickle with another name", file=WEIGHTS) from None
        raise


def _pairs(tensors: Mapping[str, TensorInfo]) -> dict[str, _Pair]:
    sides: dict[str, dict[str, TensorInfo]] = defaultdict(dict)
    for name, info in sorted(tensors.items()):
        shown = ascii(name)[:160]
        match = _TENSOR.fullmatch(name)
        if match is None:
            if "magnitude" in name or name.endswith(".bias"):
                raise AdapterUnsupported(f"the tensor {shown} is not part of a plain LoRA", tensor=name)
            raise AdapterModuleUnknown(f"the tensor {shown} is no lora_A or lora_B weight", tensor=name)
        if info.dtype not in ("F32", "F16", "BF16"):
            raise AdapterTensorsMalformed(
                f"the tensor {shown} is {info.dtype}",
                hint="save the adapter as F32, F16 or BF16",
                tensor=name,
            )
        if len(info.shape) != 2 or 0 in info.shape:
            raise AdapterShapeMismatch(f"the tensor {shown} is not a matrix: {info.shape}", tensor=name)
        sides[match["module"]][match["side"]] = info
    if not sides:
        raise AdapterZeroEffect(f"{WEIGHTS} holds no tensors")
    for module, pair in sides.items():
        if len(pair) != 2:
            have = next(iter(pair))
            raise AdapterTensorsMalformed(
                f"{ascii(module)[:160]} has lora_{have} and not the other matrix",
                hint="save the adapter again with PEFT's save_pretrained",
            )
    return {module: _Pair(a=pair["A"], b=pair["B"]) for module, pair in sides.items()}


def _check_modules(pairs: Mapping[str, _Pair], base: Base) -> None:
    """One odd matrix is a fault of the adapter; all of a kind that fit nowhere come from another base."""
    unknown = [module for module in pairs if module not in base.modules]
    fits: dict[str, list[bool]] = defaultdict(list)
    for module, pair in pairs.items():
        if module in base.modules:
            fits[_short(module)].append((pair.b.shape[0], pair.a.shape[1]) == base.modules[module])
    foreign = [kind for kind, verdicts in fits.items() if len(verdicts) > 1 and not any(verdicts)]
    if foreign or not any(any(verdicts) for verdicts in fits.values()):
        what = f"no {foreign[0]} has the shape it has" if foreign else "none of its modules is"
        raise AdapterBaseMismatch(f"trained on another base: {what} in {base.name}")
    if unknown:
        first = ascii(unknown[0])[:160]
        raise AdapterModuleUnknown(
            f"{base.name} has no module {first} ({len(unknown)} unknown in all)", module=unknown[0]
        )
    for module, pair in pairs.items():
        out, into = base.modules[module]
        if (pair.b.shape[0], pair.a.shape[1]) != (out, into):
            raise AdapterShapeMismatch(
                f"{module} is {out} x {into}: lora_A {pair.a.shape} and lora_B {pair.b.shape} do not fit",
                module=module,
            )


def _check_targets(pairs: Mapping[str, _Pair], config: AdapterConfig, base: Base) -> None:
    """PEFT ignores what the config does not target and makes up what is missing; vLLM does neither."""
    for module in pairs:
        if _short(module) not in TARGETS:
            raise AdapterUnsupported(f"{module} is no layer that engines serve LoRA on", module=module)
    if config.targets is None:
        return
    targeted = {module for module in base.modules if _targeted(module, config.targets)}
    if extra := sorted(set(pairs) - targeted):
        raise AdapterConfigInvalid(f"{extra[0]} has tensors and is not among target_modules", module=extra[0])
    if not config.partial and (absent := sorted(targeted - set(pairs))):
        raise AdapterConfigInvalid(
            f"{absent[0]} is among target_modules and has no tensors", module=absent[0]
        )


def _check_ranks(pairs: Mapping[str, _Pair], config: AdapterConfig, max_rank: int | None) -> None:
    for module, pair in pairs.items():
        ranks, wanted = (pair.a.shape[0], pair.b.shape[1]), config.rank_of(module)
        if max_rank is not None and max(ranks) > max_rank:
            raise AdapterRankTooHigh(f"{module} has rank {max(ranks)}, the highest allowed is {max_rank}")
        if ranks != (wanted, wanted):
            raise AdapterShapeMismatch(
                f"{module}: the config says rank {wanted}, lora_A has {ranks[0]} and lora_B {ranks[1]}",
                hint="adapter_config.json was changed after training, or the files are from two adapters",
                module=module,
            )


def _check_values(path: Path, pairs: Mapping[str, _Pair], config: AdapterConfig) -> None:
    effects: list[float] = []
    for module, pair in pairs.items():
        a, b = (_norm(read_tensor(path, info), module, side) for info, side in ((pair.a, "A"), (pair.b, "B")))
        effect = config.scale_of(module) * a * b
        for what, norm in (("lora_A has", a), ("lora_B has", b), ("its update can reach", effect)):
            if norm > MAX_NORM:
                raise AdapterTooLarge(
                    f"{module}: {what} norm {norm:.3g}, the highest allowed is {MAX_NORM:g}",
                    module=module,
                    norm=norm,
                )
        effects.append(effect)
    if not any(effects):
        raise AdapterZeroEffect("every lora_B (or lora_A) matrix is zero")


def _norm(tensor: npt.NDArray[np.float32], module: str, side: str) -> float:
    """Frobenius, in float64: the square of a large float32 would be infinite."""
    if not np.isfinite(tensor).all():
        raise AdapterNotFinite(f"{module}: lora_{side} holds NaN or infinity", module=module)
    return math.sqrt(float(np.sum(np.square(tensor, dtype=np.float64))))


def _targeted(module: str, targets: Sequence[str]) -> bool:
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _short(module: str) -> str:
    return module.rpartition(".")[2]
