"""Figures of training runs, pinned so that no new TRL, PEFT or change of ours moves them unseen."""

from collections.abc import Sequence
from typing import Any

import pytest


def trajectory(figures: Sequence[float], *, first: float = 1e-2, drift: float, off: float = 0.0) -> list[Any]:
    """What a run must show: its first figure within ``first``, the later ones within ``drift`` (relative; or
    within ``off``).

    Processors add up in different orders, and a run multiplies that: where answers are drawn, one token that
    falls otherwise changes all that follow. So the tolerances are what SSE4.1, AVX2 and AVX-512, with MKL's
    kernels for each and the one that is the same for all, were measured to differ by, and twice that.
    """
    head, *rest = figures
    return [
        pytest.approx(head, rel=first, abs=off),
        *(pytest.approx(each, rel=drift, abs=off) for each in rest),
    ]
