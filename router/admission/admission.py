"""admit: reserve before anything is sent what a request may use at most, or say when to come back."""

from typing import NamedTuple

from registry.counting import SLICE_SECONDS
from registry.models import Key, Quota, Tenant
from router.admission.accounts import Account
from router.admission.hours import Hours
from router.admission.shown import shown
from router.admission.tickets import FREE, Ticket, touch
from router.errors import Limited
from router.metering import Usage
from router.surfaces.surface import Order, Question
from router.tables import Principal, Tables

TEMPLATE_TOKENS = 64
"""What a chat template adds around the messages that the JSON around them does not make up for."""
LARGE = 16 << 10
"""Bytes of a body that may take longer to read than all the rest of a request takes: 2 ms of the loop."""
_MOST_CALLERS = 20_000
_NO_LIMITS = frozenset({"requests_per_minute", "tokens_per_minute", "tokens_per_day", "concurrent_requests"})


class _Caller(NamedTuple):
    """What is known of a caller while its documents are the same objects."""

    tenant: Tenant | None
    key: Key | None
    accounts: tuple[Account, ...]
    weight: int


class Admission:
    """Limits of tenants and keys. On one event loop; nothing in it waits."""

    def __init__(self, hours: Hours, *, token_bytes: float = 1.0) -> None:
        """``token_bytes``: bytes of a prompt that make a token; with 1 no byte-level tokenizer makes more."""
        self._hours = hours
        if not 1 <= token_bytes <= 4:
            # With more than four, ordinary English is underestimated; with less than one, nothing is.
            raise ValueError("token_bytes must be 1 to 4")
        self._token_bytes = token_bytes
        self._callers: dict[str, _Caller] = {}
        self.accounts: dict[str, Account] = {}
        """By subject; those with limits only."""
        self.touched: list[Account] = []
        """What the other routers should hear of; emptied by the exchange."""
        self.refused: dict[str, int] = {}
        """Refusals by error code."""

    def enter(self, principal: Principal, tables: Tables, body_bytes: int) -> None:
        """Count a large request before it is read, so that who has used up a limit costs no time. It stays
        counted, whatever it turns out to be. Raises RateLimited, BudgetSpent."""
        self.admit(principal, tables, body_bytes, 0).settle(Usage(0, 0))

    def admit(
        self, principal: Principal, tables: Tables, prompt_bytes: int, completion: int, requests: int = 1
    ) -> Ticket:
        """``completion``: max_tokens × n. ``requests``: 0 for one that has entered.

        Raises RateLimited, BudgetSpent, RequestOverLimit.
        """
        state = tables.state
        caller = self._callers.get(principal.key)
        tenant, key = state.tenants.get(principal.tenant), state.keys.get(principal.key)
        if caller is None or caller.tenant is not tenant or caller.key is not key:
            caller = self._caller(principal, tenant, key)
        accounts = caller.accounts
        if not accounts and caller.weight == 1:
            return FREE
        now = self._hours.now()
        estimate = TEMPLATE_TOKENS + int(prompt_bytes / self._token_bytes)
        tokens = estimate + completion
        try:
            held = []
            slot = int(now) // SLICE_SECONDS
            for account in accounts:
                if slot > account.slot:
                    account.advance(slot)
                held.append(account.check(tokens, completion, now, requests))
        except Limited as error:
            self.refused[error.code] = self.refused.get(error.code, 0) + 1
            error.headers = [*error.headers, *shown(accounts, now)]
            for account in accounts:  # what the others gave back meanwhile is worth hearing
                touch(account, self.touched)
            raise
        return Ticket(accounts, held, estimate, now, self._hours, self.touched, caller.weight, requests)

    def _caller(self, principal: Principal, tenant: Tenant | None, key: Key | None) -> _Caller:
        found = []
        if tenant is not None and (account := self._account(f"tenant/{tenant.id}", tenant.quota)):
            found.append(account)
        # The account is the line's: rotating a key doubles nothing.
        if key is not None and (account := self._account(f"key/{key.line}", key.quota)):
            found.append(account)
        if len(self._callers) >= _MOST_CALLERS:
            self._callers.clear()
        caller = self._callers[principal.key] = _Caller(
            tenant, key, tuple(found), (tenant.quota.weight if tenant else None) or 1
        )
        return caller

    def _account(self, subject: str, quota: Quota | None) -> Account | None:
        """The one account of a subject; what it counted stays when its limits change or go."""
        account = self.accounts.get(subject)
        limited = quota is not None and any(getattr(quota, name) is not None for name in _NO_LIMITS)
        if account is not None:
            account.limit(quota or Quota())
        elif limited and quota is not None:
            account = self.accounts[subject] = Account(subject, quota)
        return account if limited else None


def cost(body: bytes, question: Question, order: Order) -> tuple[int, int]:
    """Bytes of the prompt and tokens of the answers, at most, over all that a policy may ask again."""
    policy = order.policy
    times = 1 + policy.retries
    return (len(body) + policy.prompt_bytes) * times, most(question, order) * times


def most(question: Question, order: Order) -> int:
    """Tokens of one answer with all its choices, at most."""
    asked = question.max_tokens  # 0 where nothing is generated
    return (order.policy.policy.sampling.max_tokens if asked is None else asked) * order.choices
