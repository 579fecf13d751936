"""The time that windows are counted in: that of the wall, but it never goes backwards."""

from collections.abc import Callable
from datetime import datetime


class Hours:
    """Seconds since 1970, driven by a monotonic clock and corrected by the wall's now and then.

    A wall clock that jumps ahead is followed at once. One that jumps back is approached at half the speed of
    time: windows then last up to twice as long, none is counted again and none stands still.
    """

    def __init__(self, *, wall: Callable[[], datetime], ticks: Callable[[], float]) -> None:
        self._wall = wall
        self._ticks = ticks
        self._seen = ticks()
        self._base = wall().timestamp() - self._seen

    def now(self) -> float:
        return self._base + self._ticks()

    def correct(self) -> None:
        ticks = self._ticks()
        passed, self._seen = ticks - self._seen, ticks
        error = self._wall().timestamp() - (self._base + ticks)
        self._base += error if error > 0 else max(error, -passed / 2)
