"""Personal data: what a model learns by heart, it may say to anybody. Shown masked, here and in every log."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from trainer.datasets.audit.finding import Finding, Outcome
from trainer.datasets.audit.side import Side
from trainer.errors import LibrariesMissing

_CHECK: Final = "personal"
_EMAIL: Final = re.compile(r"\b[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[A-Za-z]{2,24}\b")
_RESERVED: Final = re.compile(r"[@.](?:example\.(?:com|org|net)|(?:test|example|invalid|localhost))$")
"""RFC 2606: nobody's address."""
_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD: Final = re.compile(r"(?<![\d.,])(?:\d[ -]?){12,18}\d(?![\d.,]?\d)")
_ISSUED: Final = re.compile(r"4|5[1-5]|2[2-7]|3[47]|6(?:011|5)")
"""How the numbers of Visa, Mastercard, American Express and Discover begin."""
_PHONE: Final = re.compile(r"(?<![\w+])(?<!\d )(?:\+|00)[1-9][\d ()/.-]{6,18}\d\b")
_NAMES: Final = {"email": "e-mail addresses", "iban": "bank accounts (IBAN)", "card": "payment card numbers",
                 "phone": "phone numbers"}  # fmt: skip


def personal(train: Side, held: Side | None) -> Outcome:
    findings: list[Finding] = []
    figures: dict[str, int] = dict.fromkeys(_NAMES, 0)
    for side in (train, held):
        if side is None:
            continue
        places: dict[str, list[str]] = defaultdict(list)
        shown: dict[str, str] = {}
        for entry in side.entries:
            for role, text in entry.said():
                for kind, value in found(text):
                    figures[kind] += 1
                    places[kind].append(f"{entry.where} ({role})")
                    shown.setdefault(kind, masked(kind, value))
        for kind, where in places.items():
            what = f"{_NAMES[kind]} in {side.name}: {len(where)}, such as {shown[kind]}"
            unique = tuple(dict.fromkeys(where))
            findings.append(Finding(check=_CHECK, severity="warning", what=what, places=unique))
    return Outcome(findings=tuple(findings), figures=dict(figures))


def found(text: str) -> Iterator[tuple[str, str]]:
    """(kind, value). Accounts and cards count only if their checksum fits: amounts are numbers too."""
    try:
        from stdnum import iban, luhn
    except ModuleNotFoundError as error:
        raise LibrariesMissing(f"{error.name} is not installed", library=error.name) from None
    for match in _EMAIL.finditer(text):
        if not _RESERVED.search(match[0].casefold()):
            yield "email", match[0]
    taken: list[tuple[int, int]] = []
    for match in _IBAN.finditer(text):
        if iban.is_valid(match[0]):
            taken.append(match.span())
            yield "iban", match[0]
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        inside = any(start < match.end() and match.start() < end for start, end in taken)
        if not inside and _ISSUED.match(digits) and luhn.is_valid(digits):
            taken.append(match.span())
            yield "card", match[0]
    for match in _PHONE.finditer(text):
        inside = any(start < match.end() and match.start() < end for start, end in taken)
        if not inside and 8 <= len(re.sub(r"\D", "", match[0])) <= 15:
            yield "phone", match[0]


def masked(kind: str, value: str) -> str:
    """Enough to find it by, too little to use it."""
    if kind == "email":
        name, _, domain = value.rpartition("@")
        return f"{name[:1]}…@…{domain[domain.rindex('.') :]}"
    if kind in ("iban", "phone"):
        return f"{value[:3] if kind == 'phone' else value[:2]}…{value[-2:]}"
    return f"…{value[-4:]}"
