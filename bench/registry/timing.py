"""How long things take, and how much memory."""

import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one figure, in the unit of its samples."""

    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        ordered = sorted(samples)
        return cls(statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))], ordered[-1])


def seconds(work: Callable[[], T]) -> tuple[float, T]:
    gc.collect()
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def spread(work: Callable[[int], object], times: int, *, scale: float = 1.0) -> Spread:
    """``work(number)`` again and again; ``scale`` turns seconds into the figure's unit."""
    samples = []
    for number in range(times):
        began = time.perf_counter()
        work(number)
        samples.append((time.perf_counter() - began) * scale)
    return Spread.of(samples)


def megabytes(work: Callable[..., Any], *arguments: Any) -> float:
    """By how much a fresh process grows at most while it does ``work``, imports not counted."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_growth, work, arguments).result()


def _growth(work: Callable[..., Any], arguments: tuple[Any, ...]) -> float:
    before = _peak()
    kept = work(*arguments)
    after = _peak()
    del kept
    return (after - before) / 1024


def _peak() -> int:
    """kB. Not getrusage: its figure is inherited from the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
