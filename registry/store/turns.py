"""Whose turn it is, in the order in which they came.

A pool of connections gives one to whoever asks at the right moment: with 40 threads that write one change
after the other, some waited for more than 20 s while others wrote hundreds.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock

from registry.store.errors import StoreBusy


class Turns:
    def __init__(self, places: int, *, patience: float) -> None:
        """At most ``places`` at a time; who waits for more than ``patience`` seconds gets StoreBusy."""
        self._free = places
        self._patience = patience
        self._lock = Lock()
        self._waiting: deque[Event] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            if self._free:  # then nobody waits: a place that becomes free goes to who does
                self._free -= 1
                return
            mine = Event()
            self._waiting.append(mine)
        try:
            came = mine.wait(self._patience)
        except BaseException:
            if not self._gave_up(mine):
                self._leave()
            raise
        if not came and self._gave_up(mine):
            raise StoreBusy("no database connection became free in time")

    def _gave_up(self, mine: Event) -> bool:
        """False: the place was handed over in the last moment."""
        with self._lock:
            if mine.is_set():
                return False
            self._waiting.remove(mine)
            return True

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
