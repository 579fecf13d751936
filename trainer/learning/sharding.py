"""A frozen base in pieces: each process holds a part and fetches a layer's rest while it computes (FSDP2)."""

from typing import Any

from trainer.learning.base import needed_libraries


def arguments(model: Any) -> dict[str, Any]:
    """For TrainingArguments. The unit that is fetched is the model's own layer class."""
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": sorted(model._no_split_modules or ()),
        },
    }


def shard(trainer: Any) -> None:
    """Make sure that the base is sharded.

    accelerate 1.15 takes FSDP for something of GPUs and goes on without it, and without a word, on CPUs. gloo
    shards as well as NCCL does, and only so can this be tested without several GPUs.
    """
    with needed_libraries():
        from accelerate.state import AcceleratorState
        from accelerate.utils import (
            DistributedType,
            FullyShardedDataParallelPlugin,
        )

    if trainer.is_fsdp_enabled:
        return
    plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    AcceleratorState._shared_state.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)
    trainer.is_fsdp_enabled = True


def whole(model: Any) -> dict[str, Any]:
    """The trained weights, put together. Every process must ask; the leading one gets them."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    state: dict[str, Any] = get_model_state_dict(model, options=options)
    return state
