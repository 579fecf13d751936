"""Where vLLM is wrapped. Whatever is not exactly as expected stops the start: a changed vLLM must not run
unguarded without anybody noticing."""

import functools
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from server.engines.errors import EngineUnguarded

Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]

EXPECTED: Final = {
    # (module, class that defines it, method): names of its parameters
    ("vllm.v1.worker.worker_base", "WorkerWrapperBase", "execute_model"): ("self", "scheduler_output"),
    ("vllm.v1.worker.gpu_input_batch", "InputBatch", "make_lora_inputs"): (
        "self", "num_scheduled_tokens", "num_sampled_tokens",
    ),
    ("vllm.v1.worker.gpu.lora_utils", "LoraState", "make_lora_inputs"): (
        "self", "req_ids", "idx_mapping", "num_scheduled_tokens",
    ),
    ("vllm.lora.worker_manager", "WorkerLoRAManager", "_load_adapter"): ("self", "lora_request"),
    ("vllm.lora.worker_manager", "WorkerLoRAManager", "set_active_adapters"): ("self", "requests", "mapping"),
    ("vllm.lora.worker_manager", "LRUCacheWorkerLoRAManager", "add_adapter"): ("self", "lora_request"),
    ("vllm.lora.worker_manager", "LRUCacheWorkerLoRAManager", "create_lora_manager"): (
        "self", "model", "vllm_config",
    ),
    ("vllm.lora.model_manager", "LoRAModelManager", "activate_adapter"): ("self", "lora_id"),
}  # fmt: skip
"""What both of vLLM's model runners go through (0.32)."""

ATTRIBUTES: Final = ("lora_index_to_id", "punica_wrapper_mapping", "modules", "_registered_adapters")
"""Of the object that holds the slots."""


def wrap(wrappers: dict[str, Wrapper]) -> None:
    """``wrappers`` by ``Class.method``, all of EXPECTED. Raises EngineUnguarded, and then changes nothing."""
    found = []
    for (module, owner, method), parameters in EXPECTED.items():
        try:
            target = getattr(import_module(module), owner)
            original = target.__dict__[method]
            given = tuple(inspect.signature(original).parameters)
        except (ImportError, AttributeError, KeyError, TypeError, ValueError):
            raise EngineUnguarded(f"this vLLM has no {owner}.{method} to watch") from None
        if given != parameters:
            raise EngineUnguarded(f"{owner}.{method} takes {', '.join(given)} in this vLLM")
        found.append((target, method, original, wrappers[f"{owner}.{method}"]))
    _refuse_overrides()
    for target, method, original, wrapper in found:
        setattr(target, method, functools.wraps(original)(wrapper(original)))


def require(slots: object) -> None:
    """Raises EngineUnguarded when what holds the slots has another shape."""
    for name in ATTRIBUTES:
        if not hasattr(slots, name):
            raise EngineUnguarded(f"vLLM's {type(slots).__name__} has no {name} to watch")


def _refuse_overrides() -> None:
    """A subclass with its own version of a wrapped method would go around the wrapper."""
    used = import_module("vllm.lora.worker_manager").LRUCacheWorkerLoRAManager
    for method in ("_load_adapter", "set_active_adapters"):
        if method in used.__dict__:
            raise EngineUnguarded(f"{used.__name__} has a {method} of its own in this vLLM")
    mixin = import_module("vllm.v1.worker.lora_model_runner_mixin")
    if mixin.LRUCacheWorkerLoRAManager is not used:
        raise EngineUnguarded("vLLM's model runners keep their adapters elsewhere")
