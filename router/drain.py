"""Going away politely: what is under way ends, what comes new is sent elsewhere."""

import asyncio
from contextlib import suppress


class Drain:
    """One per router, on its event loop."""

    __slots__ = ("busy", "under_way")

    def __init__(self) -> None:
        self.under_way = False
        """Set once, at the wish to stop; never taken back."""
        self.busy = 0
        """Requests being answered."""

    def begin(self) -> None:
        self.under_way = True

    async def quiet(self, seconds: float) -> None:
        """Returns when no request is being answered, at the latest after ``seconds``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.busy:  # noqa: ASYNC110 (an event would cost every request what a stop needs once)
                    await asyncio.sleep(0.01)
