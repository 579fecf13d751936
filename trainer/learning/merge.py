"""A base with an adapter's changes in its weights: for runtimes that load no LoRA, or as a new base."""

import shutil
from pathlib import Path
from typing import Final, Literal, TypeAlias

from trainer.errors import MergeRefused
from trainer.learning.base import load_model, needed_libraries, surroundings, with_adapter

Precision: TypeAlias = Literal["float32", "bfloat16"]

_MODE: Final = 0o644
_SHARD: Final = "5GB"
"""What the hub and vLLM are used to."""
_BESIDE: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
)
"""Copied byte for byte, so that the merged base has the tokenizer and the template of its base."""


def merge(base_folder: Path, adapter_folder: Path, out: Path, *, precision: Precision = "float32") -> Path:
    """Write a whole base to ``out``, which must not exist. Raises MergeRefused.

    Added in float32 and rounded once at the end: bfloat16 sums would lose small changes (8 bits of mantissa).
    """
    if out.exists():
        raise MergeRefused(f"{out} exists already")
    with surroundings(seed=0), needed_libraries():
        import torch

        merged = with_adapter(load_model(base_folder), adapter_folder).merge_and_unload()
        if broken := [name for name, weight in merged.named_parameters() if not weight.isfinite().all()]:
            raise MergeRefused(f"{broken[0]} is not finite after merging")
        merged = merged.to(getattr(torch, precision))
        part = out.with_name(f".{out.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        merged.save_pretrained(str(part), safe_serialization=True, max_shard_size=_SHARD)
    for name in _BESIDE:
        if (base_folder / name).is_file():
            shutil.copyfile(base_folder / name, part / name)
    for path in part.iterdir():
        path.chmod(_MODE)
    part.replace(out)
    return out
