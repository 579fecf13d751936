"""Going away politely: what is under way ends, what comes new is sent elsewhere."""


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
