"""A ticket: what was reserved for one request, to be settled once, however the request ends."""

from collections.abc import Sequence

from registry.counting import SLICE_SECONDS
from router.admission.accounts import Account
from router.admission.hours import Hours
from router.admission.shown import Shown, shown
from router.metering import Usage


class Ticket:
    __slots__ = (
        "_accounts",
        "_estimate",
        "_held",
        "_hours",
        "_requests",
        "_settled",
        "_slot",
        "_touched",
        "weight",
    )

    def __init__(
        self,
        accounts: Sequence[Account],
        held: Sequence[int],
        estimate: int,
        now: float,
        hours: Hours,
        touched: list[Account],
        weight: int,
        requests: int,
    ) -> None:
        """``held``: tokens reserved in each account. ``estimate``: tokens of the prompt. ``weight``: in the
        queue of a busy engine. ``requests``: 0 where the request was counted already."""
        self.weight = weight
        self._requests = requests
        self._accounts = accounts
        self._held = held
        self._estimate = estimate
        self._hours = hours
        self._touched = touched
        self._settled = False
        slot = self._slot = int(now) // SLICE_SECONDS
        for account, tokens in zip(accounts, held, strict=True):
            account.reserve(tokens, slot, requests)
            if not account.touched:
                touch(account, touched)

    def settle(self, usage: Usage | None, produced: int | None = None, *, died: int = 0) -> None:
        """The request ended. Counted is ``usage`` as its engine reports it; without one, the estimate of the
        prompt and ``produced`` (bytes of answer that arrived: a token has at least one); without either, all
        that was reserved. ``died``: tokens that nobody had, because their engine died; they count beside
        ``usage`` as far as the reservation goes."""
        if usage is not None:
            self._end(usage.prompt + usage.completion, most=False, died=died)
        elif produced is not None:
            self._end(self._estimate + produced, most=True)
        else:
            self._end(None, most=True)

    def forget(self) -> None:
        """The request reached no engine: it never counted."""
        if not self._settled:
            for account in self._accounts:
                account.forget(self._slot, self._requests)
        self._end(0, most=False)

    def headers(self) -> Shown:
        return shown(self._accounts, self._hours.now())

    def _end(self, tokens: int | None, *, most: bool, died: int = 0) -> None:
        if self._settled:
            return
        self._settled = True
        slot = self._slot
        for account, held in zip(self._accounts, self._held, strict=True):
            used = held if tokens is None or (most and tokens > held) else tokens
            if died:
                used = max(used, min(used + died, held))
            account.settle(used - held, slot)
            if not account.touched:
                touch(account, self._touched)


def touch(account: Account, touched: list[Account]) -> None:
    if not account.touched:
        account.touched = True
        touched.append(account)


class _Free(Ticket):
    """Of those without limits."""

    __slots__ = ()

    def __init__(self) -> None:
        self.weight = 1

    def settle(self, usage: Usage | None, produced: int | None = None, *, died: int = 0) -> None:
        return None

    def forget(self) -> None:
        return None

    def headers(self) -> Shown:
        return []


FREE = _Free()
"""One for all, because it holds nothing."""
