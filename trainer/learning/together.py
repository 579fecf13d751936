"""Several processes that learn one adapter: who leads, who has which rows, and what all of them agree on.

With one process all of this is free: nothing is sent and everybody leads.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from trainer.learning.base import needed_libraries

T = TypeVar("T")


def join() -> None:
    """Become one of the processes that torchrun started."""
    with needed_libraries():
        import torch
        import torch.distributed as processes

    on_gpu = torch.cuda.is_available()
    processes.init_process_group("nccl" if on_gpu else "gloo")
    if on_gpu:
        torch.cuda.set_device(processes.get_rank() % torch.cuda.device_count())


def leads() -> bool:
    """Whether this process writes and reports."""
    return _rank() == 0


def mine(order: Sequence[T], batch_size: int) -> list[T]:
    """This process's part of ``order``, whose batches all processes share.

    accelerate deals out whole batches of ``batch_size / processes`` rows in turn, so that together they are
    the rows which one process would have had in that step.
    """
    rank, count = _rank(), _count()
    part = batch_size // count
    starts = range(rank * part, len(order), batch_size)
    return [row for start in starts for row in order[start : start + part]]


def agreed(decide: Callable[[], T]) -> T:
    """What ``decide`` says in the leading process; the others do not ask their own clock or disk."""
    if _count() == 1:
        return decide()
    import torch.distributed as processes

    said = [decide() if leads() else None]
    processes.broadcast_object_list(said, src=0)
    decided: Any = said[0]
    return decided  # type: ignore[no-any-return]  # it went through a pickle of torch's


def gathered(own: T) -> list[T]:
    """What each process brings, in every process."""
    import torch.distributed as processes

    brought: list[Any] = [None] * _count()
    processes.all_gather_object(brought, own)
    return brought


def meet() -> None:
    """Wait until all of them are here."""
    if _count() > 1:
        import torch.distributed as processes

        processes.barrier()


def arguments(device: str) -> dict[str, Any]:
    """What TrainingArguments must know besides."""
    # Every LoRA weight is used in every step; looking for unused ones would cost a pass over the graph.
    return {"ddp_backend": "nccl" if device == "cuda" else "gloo", "ddp_find_unused_parameters": False}


def _rank() -> int:
    return _group().get_rank() if _joined() else 0


def _count() -> int:
    return _group().get_world_size() if _joined() else 1


def _joined() -> bool:
    processes = _group()
    return bool(processes.is_available() and processes.is_initialized())


def _group() -> Any:
    with needed_libraries():
        import torch.distributed
    return torch.distributed
