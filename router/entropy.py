"""Randomness for ids, taken from the kernel a page at a time: a system call for each was 2 % of a request."""

import os
from collections.abc import Callable

_PAGE = 4096


class Entropy:
    """Call it for so many random bytes; none is given twice. Of one process: a fork must make its own."""

    __slots__ = ("_at", "_page", "_source")

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._page = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        if self._at + count > len(self._page):
            self._page, self._at = self._source(max(_PAGE, count)), 0
        self._at += count
        return self._page[self._at - count : self._at]
