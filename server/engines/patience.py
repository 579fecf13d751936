"""How long a fresh boot waits for other engines to serve what this one serves."""

from server.engines.residency import Renewal


class Patience:
    """Of one boot. It begins anew with another reason, and when a renewal that could wait for ever hurries:
    others then have as long as if it had hurried from the start."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._for: tuple[str, bool] | None = None
        self._since = 0.0

    def lasts(self, renewal: Renewal, now: float) -> bool:
        """``now``: of a clock that nobody sets back."""
        if self._for != (renewal.why, renewal.hurries):
            self._for, self._since = (renewal.why, renewal.hurries), now
        return now - self._since < self._seconds

    def over(self) -> None:
        """No fresh boot is needed any more."""
        self._for = None
