"""What was used in the last minute and today: by this router, and by the others as last heard.

A minute is the sum of 13 slices of 5 seconds (``registry.counting``): they cover any 60 seconds, so that no
minute at all, however it is cut, holds more than the limit; for it a place comes back up to 5 seconds late.
Sums of slices, unlike the state of a leaky bucket (GCRA), can be added up over routers.
"""

from registry.counting import DAY_SECONDS, SLICE_SECONDS, SLICES


class Minute:
    """Amounts by slice. Slices never come back once they are past: time given to it must not go backwards."""

    __slots__ = ("limit", "newest", "others", "own", "slot", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.own = [0] * SLICES
        self.others = [0] * SLICES
        self.slot = 0
        self.used = 0
        """Of all routers, over all slices."""
        self.newest = 0
        """The last slice in which anything was used."""

    def advance(self, slot: int) -> None:
        if slot <= self.slot:
            return
        for gone in range(max(self.slot + 1, slot - SLICES + 1), slot + 1):
            at = gone % SLICES
            self.used -= self.own[at] + self.others[at]
            self.own[at] = self.others[at] = 0
        self.slot = slot

    def slots(self) -> range:
        return range(max(0, self.slot - SLICES + 1), self.slot + 1)

    def add(self, slot: int, amount: int) -> None:
        """``amount`` may be negative: given back, as far as it was taken from here (a limit may be younger
        than a request). In a slice that is past it changes nothing."""
        if slot <= self.slot - SLICES:
            return
        at = slot % SLICES
        if amount < 0 and amount < -self.own[at]:
            amount = -self.own[at]
        self.own[at] += amount
        self.used += amount
        if amount > 0 and slot > self.newest:
            self.newest = slot

    def hear(self, slot: int, amount: int) -> None:
        """All that the other routers used in a slice, one of :meth:`slots`."""
        at = slot % SLICES
        self.used += amount - self.others[at]
        self.others[at] = amount
        if amount and slot > self.newest:
            self.newest = slot

    def wait(self, amount: int, now: float) -> float:
        """Seconds until ``amount`` fits, if nothing else is asked for; 0 when it fits now."""
        missing = self.used + amount - self.limit
        if missing <= 0:
            return 0.0
        for slot in range(self.slot - SLICES + 1, self.slot + 1):
            missing -= self.own[slot % SLICES] + self.others[slot % SLICES]
            if missing <= 0:
                return (slot + SLICES) * SLICE_SECONDS - now
        return SLICES * SLICE_SECONDS

    def reset(self, now: float) -> float:
        """Seconds until all of the limit is there again."""
        return max(0.0, (self.newest + SLICES) * SLICE_SECONDS - now) if self.used else 0.0


class Day:
    """Tokens of the current UTC day."""

    __slots__ = ("day", "limit", "others", "own")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.day = 0
        self.own = 0
        self.others = 0

    @property
    def used(self) -> int:
        return self.own + self.others

    def advance(self, day: int) -> None:
        if day > self.day:
            self.day = day
            self.own = self.others = 0

    def add(self, day: int, amount: int) -> None:
        if day == self.day:
            self.own = max(0, self.own + amount)

    def hear(self, day: int, amount: int) -> None:
        if day == self.day:
            self.others = amount

    def reset(self, now: float) -> float:
        return (self.day + 1) * DAY_SECONDS - now
