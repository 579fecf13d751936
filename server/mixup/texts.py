"""Prompts: plain words, so that any server takes them; long common beginnings, so that caches are hit."""

import random
from typing import Final

_WORDS: Final = (
    "account", "amount", "answer", "approval", "bank", "branch", "budget", "card", "cash", "charge",
    "client", "clerk", "contract", "cost", "credit", "currency", "customer", "date", "debit",
    "delivery", "deposit", "device", "discount", "document", "due", "email", "entry", "exchange", "fee",
    "file", "fine", "form", "fund", "goods", "group", "income", "interest", "invoice", "item", "ledger",
    "letter", "limit", "line", "loan", "manager", "market", "month", "name", "notice", "number",
    "offer", "office", "order", "owner", "payment", "period", "person", "plan", "policy", "price",
    "product", "profit", "query", "quote", "rate", "receipt", "record", "refund", "region", "report",
    "request", "review", "risk", "sale", "service", "share", "shop", "site", "statement", "stock",
    "store", "supplier", "tax", "team", "term", "time", "total", "transfer", "unit", "value", "vendor",
)  # fmt: skip
SHARED: Final = 160
"""Words that all prompts begin with: more than one block of vLLM's CPU cache (128 tokens)."""


def prompts(seed: int, count: int) -> tuple[str, ...]:
    """Half of them begin alike, so that one adapter's cached prefix could serve another's request."""
    drawn = random.Random(f"prompts/{seed}")  # noqa: S311 (it must repeat)
    shared = _words(drawn, SHARED)
    return tuple(
        (shared if at % 2 else "") + _words(drawn, 24 if at % 2 else 12 + 4 * at) for at in range(count)
    )


def fresh(drawn: random.Random, words: int) -> str:
    """A prompt that nobody has sent before."""
    return _words(drawn, words)


def _words(drawn: random.Random, count: int) -> str:
    return "".join(drawn.choice(_WORDS) + " " for _ in range(count))
