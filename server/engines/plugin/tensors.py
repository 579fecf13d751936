"""Exact sums of slots' tensors: whole numbers, so that neither order nor threads change them."""

from collections.abc import Iterator
from typing import Any


def slot_tensors(modules: dict[str, Any], slot: int) -> Iterator[Any]:
    """Every A and B of one slot, in a fixed order; modules without the usual pair (MoE) give theirs."""
    for module in modules.values():
        for name in ("lora_a_stacked", "lora_b_stacked", "w13_lora_a_stacked", "w2_lora_a_stacked"):
            stacked = getattr(module, name, None)
            if isinstance(stacked, tuple):
                for tensor in stacked:
                    yield tensor[slot]


def pending_sum(tensor: Any) -> Any:
    """A 0-dimensional int64 tensor on the same device: read later, so that a GPU need not wait for each."""
    import torch

    sizes = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(sizes[tensor.element_size()]).sum(dtype=torch.int64)


def sums(modules: dict[str, Any], slot: int) -> tuple[int, ...]:
    import torch

    pending = [pending_sum(tensor) for tensor in slot_tensors(modules, slot)]
    return tuple(torch.stack(pending).tolist()) if pending else ()


def without_effect(adapter: Any) -> bool:
    """Whether every B of a loaded adapter is zero."""
    layers = list(adapter.loras.values())
    return bool(layers) and all(layer.lora_b is not None and not layer.lora_b.any() for layer in layers)
