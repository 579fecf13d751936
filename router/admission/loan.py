"""A place in an engine for what may end at any moment: it goes back when a request waits for that engine."""

import asyncio


class Loan:
    """Of the task that makes it."""

    __slots__ = ("_work", "recalled")

    def __init__(self) -> None:
        self._work = asyncio.current_task()
        self.recalled = False

    def recall(self) -> None:
        assert self._work is not None
        self.recalled = True
        self._work.cancel()

    def ended(self) -> bool:
        """Whether the task's cancellation is the recall and nothing else; it may go on then."""
        assert self._work is not None
        return self.recalled and self._work.uncancel() == 0
