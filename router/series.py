"""Counts and histograms of one event loop, and Prometheus' text format of them.

prometheus_client's children take a lock and walk the buckets for each value: 9 µs for what a finished request
changes here, against 1.5 µs for plain numbers that one thread owns (measured, CPython 3.11). Its parser reads
in the tests what this writes.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Kind: TypeAlias = Literal["counter", "gauge", "summary", "histogram"]


class Histogram:
    """``observe`` values; buckets hold their own values only, and are added up when they are written."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self, name: str, labels: str) -> Iterable[str]:
        before = f"{labels}," if labels else ""
        reached = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            reached += count
            yield f'{name}_bucket{{{before}le="{bound}"}} {reached}'
        yield sample(f"{name}_sum", labels, self.total)
        yield sample(f"{name}_count", labels, reached)


class Summary:
    """A count and a sum: enough for a mean, at two series where a histogram has fifteen."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count, self.total = 0, 0.0

    def observe(self, value: float) -> None:
        self.count += 1
        self.total += value

    def samples(self, name: str, labels: str) -> Iterable[str]:
        yield sample(f"{name}_sum", labels, self.total)
        yield sample(f"{name}_count", labels, self.count)


def labels_of(pairs: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs.items())


def sample(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {value!r}" if labels else f"{name} {value!r}"


def family(name: str, kind: Kind, meaning: str, samples: Iterable[str]) -> str:
    """A whole metric; ``name`` of a counter without its ``_total`` is what ``samples`` add it to."""
    return "\n".join((f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *samples, ""))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
