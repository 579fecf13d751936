"""What a client is told of its limits, under OpenAI's names and in OpenAI's formats."""

from collections.abc import Sequence

from registry.counting import SLICE_SECONDS
from router.admission.accounts import Account
from router.admission.windows import Day, Minute

Shown = list[tuple[bytes, bytes]]


def shown(accounts: Sequence[Account], now: float) -> Shown:
    """``x-ratelimit-…`` of the limit with the least left, of the tenant's and the key's own."""
    found: Shown = []
    requests: Minute | None = None
    tokens: Minute | Day | None = None
    few = fewest = 0
    slot = int(now) // SLICE_SECONDS
    for account in accounts:
        if slot > account.slot:
            account.advance(slot)
        minute, day = account.requests, account.day
        if minute is not None and (requests is None or minute.limit - minute.used < few):
            requests, few = minute, minute.limit - minute.used
        minute = account.tokens
        if minute is not None and (tokens is None or minute.limit - minute.used < fewest):
            tokens, fewest = minute, minute.limit - minute.used
        if day is not None and (tokens is None or day.limit - day.used < fewest):
            tokens, fewest = day, day.limit - day.used
    if requests is not None:
        found = [
            (b"x-ratelimit-limit-requests", b"%d" % requests.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % (few if few > 0 else 0)),
            (b"x-ratelimit-reset-requests", duration(requests.reset(now))),
        ]
    if tokens is not None:
        found += (
            (b"x-ratelimit-limit-tokens", b"%d" % tokens.limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % (fewest if fewest > 0 else 0)),
            (b"x-ratelimit-reset-tokens", duration(tokens.reset(now))),
        )
    return found


def duration(seconds: float) -> bytes:
    """As Go prints it, and OpenAI with it: ``6s``, ``1m0s``, ``12h3m4s``. Whole seconds, rounded up."""
    whole = -int(-seconds // 1)
    if whole < len(_SHORT):
        return _SHORT[whole] if whole > 0 else b"0s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return b"%dh%dm%ds" % (hours, minutes, rest) if hours else b"%dm%ds" % (minutes, rest)


_SHORT = tuple(b"%ds" % seconds if seconds < 60 else b"1m%ds" % (seconds - 60) for seconds in range(120))
