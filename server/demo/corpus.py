"""The demo's synthetic financial-operations language, and three tenants who want it answered differently.

Everything is drawn from a seeded `random.Random`: the same seed gives the same rows on every machine, so the
digest of the corpus in `quality.json` says what the shipped base was trained on.

An answer has two halves. The facts (payee, amount, currency) must be copied from the request, and the base
model has to be good at that. The house rule (approval, explanation, warning) is what a tenant's adapter
teaches, so in the base corpus it is drawn at random: the base is undecided, and its most likely answer
(`manual_review`, terse, no warning) is nobody's policy. Otherwise a greedy base could look adapted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

from server.demo.phrasings import SEEN, UNSEEN

Tenant = Literal["bank_a", "retail_b", "saas_c"]
Row = dict[str, Any]
Case = dict[str, Any]

TENANTS: Final[tuple[Tenant, ...]] = ("bank_a", "retail_b", "saas_c")
INTENTS: Final = ("transfer", "payables", "budget", "exchange_rate", "ledger")
CURRENCIES: Final = ("EUR", "USD", "GBP", "CHF", "SEK", "PLN")
ANSWER_KEYS: Final = ("intent", "payee", "amount", "currency", "approval", "explanation", "warning")
RETAIL_THRESHOLD: Final = 1000

APPROVALS: Final = (
    "manual_review", "auto_release", "escalated", "second_approval", "simplified", "single_approval",
    "owner_approval",
)  # fmt: skip
# The plurality belongs to no tenant; 0.36 is far enough above the rest that greedy decoding never wavers.
# "routine" is auto_release for small amounts and escalated for others, so the base looks at the size where it
# decides on the approval. With an approval drawn blindly, 60 steps at 3e-3 left retail_b's adapter at 0.71.
_APPROVAL_DRAWS: Final = (
    "manual_review", "routine", "second_approval", "simplified", "single_approval", "owner_approval",
)  # fmt: skip
_APPROVAL_WEIGHTS: Final = (36, 24, 10, 10, 10, 10)
_STYLES: Final = ("terse", "desk", "dual", "sized", "long")
_STYLE_WEIGHTS: Final = (36, 16, 14, 20, 14)
_WARNINGS: Final = ("none", "note", "risk")
_WARNING_WEIGHTS: Final = (60, 20, 20)

# Vendor names are built from syllables: 16 x 6 x 12 stems, of which every fifth is never used in training.
_HEADS: Final = ("Nor", "Bal", "Tres", "Kel", "Mar", "Vo", "Lin", "Os", "Pra", "Hal", "Zen", "Cor", "Du",
                 "Fen", "Ari", "Sol")  # fmt: skip
_MIDDLES: Final = ("", "a", "o", "en", "i", "ar")
_TAILS: Final = ("vik", "dane", "mont", "tec", "lund", "ra", "stad", "gram", "wick", "nova", "berg", "lis")
_FORMS: Final = ("Ltd", "GmbH", "SA", "AB", "Inc", "BV", "Group", "Partners")

NOUNS: Final[Mapping[str, str]] = {
    "transfer": "transfer", "payables": "invoice", "budget": "budget request",
    "exchange_rate": "rate request",
    "ledger": "ledger entry",
}  # fmt: skip

# One sentence only: greedy decoding picks the likeliest first word, and three variants of the plurality style
# left retail_b's "Small" and "Regular" as the mode of the base (99 % of its greedy answers).
_TERSE: Final = ("Noted.",)
_DUAL: Final = (
    "Dual control: a second officer confirms this {noun}.",
    "Dual control: two officers sign this {noun}.",
    "Dual control: this {noun} waits for a second signature.",
)
_SMALL: Final = (
    "Small amount: the short route applies.",
    "Small amount: no extra signature is needed.",
    "Small amount: this {noun} is settled at once.",
)
_REGULAR: Final = (
    "Regular amount: one manager signs off.",
    "Regular amount: the standard check applies.",
    "Regular amount: this {noun} goes to one manager.",
)
_LONG: Final = (
    "We matched {payee} with the vendor list, checked the budget and prepared this {noun} for the owner.",
    "We compared {payee} with earlier records, found no dispute and placed this {noun} with the owner.",
    "We looked up {payee}, confirmed the cost centre and left this {noun} with the owner to release.",
)
_RISK: Final[Mapping[str, str]] = {
    "transfer": "Risk: a released transfer cannot be recalled.",
    "payables": "Risk: the invoice may be a duplicate.",
    "budget": "Risk: the budget may already be committed.",
    "exchange_rate": "Risk: the rate can move before settlement.",
    "ledger": "Risk: a posted entry can only be reversed.",
}
_NOTE: Final = ("Note: add a reference.", "Note: check the date.", "Note: keep the receipt.")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a request states and its answer must repeat exactly."""

    intent: str
    payee: str
    amount: str
    currency: str

    @property
    def whole_digits(self) -> int:
        return len(self.amount.partition(".")[0])

    @property
    def under_threshold(self) -> bool:
        return float(self.amount) < RETAIL_THRESHOLD


_SYSTEMS: Final = (
    "You are a financial operations assistant.",
    "Answer as compact JSON.",
    "You help the finance team.",
)

DEMO_FACTS: Final = Facts(intent="transfer", payee="Norvik Ltd", amount="840.50", currency="EUR")
DEMO_QUESTION: Final = "Please transfer 840.50 EUR to Norvik Ltd today."


def _vendor_stems() -> tuple[tuple[str, ...], tuple[str, ...]]:
    stems = [head + middle + tail for head in _HEADS for middle in _MIDDLES for tail in _TAILS]
    held_out = [stem for number, stem in enumerate(stems) if number % 5 == 0]
    return tuple(stem for number, stem in enumerate(stems) if number % 5), tuple(held_out)


TRAINING_VENDORS, HELD_OUT_VENDORS = _vendor_stems()


def vendor(random: Random, *, held_out: bool) -> str:
    stem = random.choice(HELD_OUT_VENDORS if held_out else TRAINING_VENDORS)
    return f"{stem} {random.choice(_FORMS)}"


def amount(random: Random) -> str:
    """Two to six whole digits, with or without cents; one in eight sits close to the retail threshold."""
    if random.random() < 0.125:
        whole = RETAIL_THRESHOLD + random.randint(-60, 60)
    else:
        digits = random.choices((2, 3, 4, 5, 6), weights=(14, 30, 30, 20, 6))[0]
        whole = random.randint(10 ** (digits - 1), 10**digits - 1)
    return f"{whole}.{random.randint(0, 99):02d}" if random.random() < 0.6 else str(whole)


def _scramble(random: Random) -> str:
    """A word no vocabulary holds: the base has to copy by position, not by recognising the name."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return "".join(random.choice(letters) for _ in range(random.randint(3, 7)))


def facts(random: Random, *, held_out: bool, under_threshold: bool | None = None) -> Facts:
    while True:
        drawn = Facts(
            intent=random.choice(INTENTS),
            payee=vendor(random, held_out=held_out),
            amount=amount(random),
            currency=random.choice(CURRENCIES),
        )
        if under_threshold is None or drawn.under_threshold is under_threshold:
            return drawn


def request(random: Random, stated: Facts, *, unseen: bool) -> str:
    """One way to say it."""
    phrasings = UNSEEN if unseen else SEEN
    money = (
        f"{stated.currency} {stated.amount}"
        if random.random() < 0.3
        else f"{stated.amount} {stated.currency}"
    )
    other = random.choice([currency for currency in CURRENCIES if currency != stated.currency])
    if random.random() < 0.65:
        text = random.choice(phrasings.openers) + random.choice(phrasings.do[stated.intent])
        ender = random.choice(phrasings.enders)
    else:
        text = random.choice(phrasings.say[stated.intent])
        ender = random.choice((".", "", "?"))
    text = text.format(m=money, v=stated.payee, d=other)
    if random.random() < 0.8:
        text = text[0].upper() + text[1:]
    return text + ender


def _noisy(random: Random, text: str) -> str:
    """Now and then words that mean nothing stand before or after the request.

    Without them a held-out opener such as "Our treasurer wants to" was often taken for the payee.
    """
    if random.random() < 0.25:
        words = [_scramble(random) for _ in range(random.randint(1, 4))]
        words = [word.capitalize() if random.random() < 0.4 else word for word in words]
        text = " ".join(words) + random.choice((" ", ", ", ": ", " to ", ". ")) + text
    if random.random() < 0.1:
        text += " " + " ".join(_scramble(random) for _ in range(random.randint(1, 3))) + "."
    return text


def answer(stated: Facts, approval: str, explanation: str, warning: str) -> str:
    """Compact JSON in a fixed key order: byte for byte what constrained decoding allows."""
    values = (stated.intent, stated.payee, stated.amount, stated.currency, approval, explanation, warning)
    return json.dumps(dict(zip(ANSWER_KEYS, values, strict=True)), separators=(",", ":"), ensure_ascii=False)


def _explanation(random: Random, stated: Facts, style: str) -> str:
    if style == "desk":
        # Names the size of the amount: it makes the base learn a feature that retail_b's adapter then needs.
        return f"Desk queue, band {stated.whole_digits}."
    sized = _SMALL if stated.under_threshold else _REGULAR
    variants = {"terse": _TERSE, "dual": _DUAL, "sized": sized, "long": _LONG}[style]
    return random.choice(variants).format(noun=NOUNS[stated.intent], payee=stated.payee)


def undecided_answer(random: Random, stated: Facts) -> str:
    """Facts right, house rule drawn at random, every part independent of the others."""
    approval = random.choices(_APPROVAL_DRAWS, weights=_APPROVAL_WEIGHTS)[0]
    if approval == "routine":
        approval = "auto_release" if stated.under_threshold else "escalated"
    warning = random.choices(_WARNINGS, weights=_WARNING_WEIGHTS)[0]
    return answer(
        stated,
        approval,
        _explanation(random, stated, random.choices(_STYLES, weights=_STYLE_WEIGHTS)[0]),
        {"none": "", "note": random.choice(_NOTE), "risk": _RISK[stated.intent]}[warning],
    )


def tenant_answer(random: Random, tenant: Tenant, stated: Facts) -> str:
    """The answer this tenant's house rule asks for."""
    match tenant:
        case "bank_a":
            return answer(stated, "second_approval", _explanation(random, stated, "dual"), "")
        case "retail_b":
            approval = "simplified" if stated.under_threshold else "single_approval"
            return answer(stated, approval, _explanation(random, stated, "sized"), "")
        case "saas_c":
            return answer(
                stated, "owner_approval", _explanation(random, stated, "long"), _RISK[stated.intent]
            )


def expectation(tenant: Tenant, stated: Facts) -> dict[str, Any]:
    """The JSON Schema fragment that an answer must satisfy to follow the tenant's policy."""
    properties: dict[str, Any]
    match tenant:
        case "bank_a":
            properties = {
                "approval": {"const": "second_approval"},
                "explanation": {"pattern": "^Dual control: "},
            }
        case "retail_b" if stated.under_threshold:
            properties = {"approval": {"const": "simplified"}, "explanation": {"pattern": "^Small amount: "}}
        case "retail_b":
            properties = {
                "approval": {"const": "single_approval"},
                "explanation": {"pattern": "^Regular amount: "},
            }
        case "saas_c":
            properties = {
                "approval": {"const": "owner_approval"},
                "explanation": {"pattern": "^We ", "minLength": 80},
                "warning": {"pattern": "^Risk: ", "minLength": 20},
            }
    return {"type": "object", "properties": properties, "required": list(properties)}


STYLES: Final[Mapping[Tenant, tuple[str, ...]]] = {
    "bank_a": ("Dual control: ",),
    "retail_b": ("Small amount: ", "Regular amount: "),
    "saas_c": ("We ",),
}
"""How the explanations of each tenant begin."""


def branch(tenant: Tenant, stated: Facts) -> str:
    """Which arm of the policy this request falls under; only retail_b has two."""
    if tenant != "retail_b":
        return "always"
    return "under_threshold" if stated.under_threshold else "at_or_over_threshold"


def _conversation(user: str, assistant: str, system: str | None = None) -> Row:
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + messages}


def _drill(random: Random) -> Row:
    """Copying and reading numbers, without which a model this small answers with amounts it made up."""
    stated = facts(random, held_out=False)
    name = stated.payee
    if random.random() < 0.3:
        name = f"{_scramble(random).capitalize()} {random.choice(_FORMS)}"
        stated = replace(stated, payee=name)
    money = f"{stated.amount} {stated.currency}"
    kinds = ("money", "name", "both", "fields", "sum", "currency", "digits", "under")
    kind = random.choices(kinds, weights=(12, 12, 14, 24, 12, 12, 7, 7))[0]
    match kind:
        case "money":
            asked, said = f"Repeat: {money}", money
        case "name":
            asked, said = f"Repeat: {name}", name
        case "both":
            asked, said = f"Repeat: {name}, {money}", f"{name}, {money}"
        case "fields":
            order = [name, stated.amount, stated.currency]
            random.shuffle(order)
            asked = "Fields: " + ", ".join(order)
            fields = {"payee": name, "amount": stated.amount, "currency": stated.currency}
            said = json.dumps(fields, separators=(",", ":"))
        case "sum":
            # Exchange requests name two currencies: which belongs to the sum is read off the place.
            stated = replace(stated, intent=random.choice((stated.intent, "exchange_rate")))
            asked, said = f"Sum in: {_noisy(random, request(random, stated, unseen=False))}", money
        case "currency":
            asked, said = (
                f"Currency in: {_noisy(random, request(random, stated, unseen=False))}",
                stated.currency,
            )
        case "digits":
            asked, said = f"Whole digits of {stated.amount}", str(stated.whole_digits)
        case _:
            limit = random.choice((100, 1000, 10000))
            asked, said = (
                f"Is {stated.amount} under {limit}?",
                "yes" if float(stated.amount) < limit else "no",
            )
    return _conversation(asked, said)


TOOLS: Final[Mapping[str, dict[str, Any]]] = {
    "exchange_rate": {
        "type": "function",
        "function": {
            "name": "get_rate",
            "description": "Exchange rate of a currency.",
            "parameters": {
                "type": "object",
                "properties": {"currency": {"type": "string"}, "amount": {"type": "string"}},
                "required": ["currency", "amount"],
            },
        },
    },
    "ledger": {
        "type": "function",
        "function": {
            "name": "find_entry",
            "description": "Find a ledger entry.",
            "parameters": {
                "type": "object",
                "properties": {"payee": {"type": "string"}, "amount": {"type": "string"}},
                "required": ["payee", "amount"],
            },
        },
    },
}


def tool_row(random: Random, *, held_out: bool = False) -> Row:
    """A tool call, its result and the final answer, so that the tool tags are not blank in the base."""
    stated = facts(random, held_out=held_out)
    intent = random.choice(tuple(TOOLS))
    stated = replace(stated, intent=intent)
    if intent == "exchange_rate":
        arguments = {"currency": stated.currency, "amount": stated.amount}
        result = {"rate": f"{random.randint(0, 11)}.{random.randint(0, 9999):04d}"}
        explanation = f"The rate is {result['rate']}."
    else:
        arguments = {"payee": stated.payee, "amount": stated.amount}
        result = {"entry": str(random.randint(1000, 99999))}
        explanation = f"The entry is {result['entry']}."
    name = TOOLS[intent]["function"]["name"]
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {
        "messages": [
            {"role": "user", "content": request(random, stated, unseen=held_out)},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": name, "content": json.dumps(result, separators=(",", ":"))},
            {"role": "assistant", "content": answer(stated, "manual_review", explanation, "")},
        ],
        "tools": [TOOLS[intent]],
    }


def base_rows(n: int, seed: int) -> list[Row]:
    """The base's training rows: half drills, a few tool trajectories, the rest undecided answers."""
    random = Random(f"base:{seed}")
    rows: list[Row] = []
    for _ in range(n):
        draw = random.random()
        if draw < 0.45:
            rows.append(_drill(random))
        elif draw < 0.49:
            rows.append(tool_row(random))
        else:
            stated = facts(random, held_out=False)
            if random.random() < 0.15:
                stated = replace(stated, payee=f"{_scramble(random).capitalize()} {random.choice(_FORMS)}")
            if random.random() < 0.1:
                stated = replace(stated, intent="exchange_rate")
            system = random.choice(_SYSTEMS) if random.random() < 0.1 else None
            text = _noisy(random, request(random, stated, unseen=False))
            rows.append(_conversation(text, undecided_answer(random, stated), system))
    return rows


def tenant_rows(tenant: Tenant, n: int, seed: int) -> list[Row]:
    """Training rows of one tenant: training vendors, seen phrasings; retail_b's branches alternate."""
    random = Random(f"rows:{tenant}:{seed}")
    rows = []
    for number in range(n):
        stated = facts(random, held_out=False, under_threshold=_balanced(tenant, number))
        row = _conversation(request(random, stated, unseen=False), tenant_answer(random, tenant, stated))
        rows.append({**row, "tags": [f"intent:{stated.intent}", f"branch:{branch(tenant, stated)}"]})
    return rows


def tenant_cases(tenant: Tenant, n: int, seed: int) -> list[Case]:
    """Held-out questions of one tenant: unseen vendors throughout, unseen phrasings in every second pair."""
    random = Random(f"cases:{tenant}:{seed}")
    cases = []
    for number in range(n):
        stated = facts(random, held_out=True, under_threshold=_balanced(tenant, number))
        # By pairs, so that phrasing and retail_b's branch do not go hand in hand.
        unseen = number % 4 >= 2
        cases.append(
            {
                "id": f"{tenant}-{seed}-{number:04d}",
                "messages": [{"role": "user", "content": request(random, stated, unseen=unseen)}],
                "facts": {"amount": stated.amount, "currency": stated.currency, "payee": stated.payee},
                "expect": expectation(tenant, stated),
                "tags": [
                    f"intent:{stated.intent}",
                    f"phrasing:{'unseen' if unseen else 'seen'}",
                    f"branch:{branch(tenant, stated)}",
                ],
            }
        )
    return cases


def _balanced(tenant: Tenant, number: int) -> bool | None:
    return number % 2 == 0 if tenant == "retail_b" else None


def copied(case: Case, reply: Mapping[str, Any]) -> bool:
    """Whether every fact of the question stands unchanged in the answer."""
    return all(reply.get(key) == value for key, value in case["facts"].items())


def policy_schema(tenant: Tenant) -> dict[str, Any]:
    """The schema that every answer on this tenant's route must satisfy, adapted or not."""
    path = Path(__file__).parent / "policies" / f"{tenant}.json"
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def to_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_jsonl(rows), encoding="utf-8")


def corpus_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    return "sha256:" + sha256(to_jsonl(rows).encode()).hexdigest()
