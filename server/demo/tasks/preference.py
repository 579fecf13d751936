"""Data of the built-in recipes for preferences and reward models.

The preferred answers follow bank_a's house policy; the others are what the undecided base would say, so that
the held-out ``policy`` (which the base never satisfies) shows what was learned.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

from server.demo import corpus
from server.demo.corpus import Facts, Row

_SEED: Final = 11
_PAIRS: Final = 270
_CASES: Final = 144
"""A standard error of 0.042 at worst."""


def pairs(n: int = _PAIRS, seed: int = _SEED) -> list[Row]:
    """bank_a's answer, preferred to one that the base might give."""
    random = Random(f"pairs:{seed}")
    rows = []
    for _ in range(n):
        stated = corpus.facts(random, held_out=False)
        rows.append(
            {
                "prompt": corpus.request(random, stated, unseen=False),
                "chosen": corpus.tenant_answer(random, "bank_a", stated),
                "rejected": _off_policy(random, stated),
            }
        )
    return rows


def labelled(n: int = 450, seed: int = _SEED) -> list[Row]:
    """Single answers to different requests, every second one bank_a's and wanted."""
    random = Random(f"labelled:{seed}")
    rows = []
    for number in range(n):
        stated = corpus.facts(random, held_out=False)
        wanted = number % 2 == 0
        said = corpus.tenant_answer(random, "bank_a", stated) if wanted else _off_policy(random, stated)
        rows.append(
            {
                "prompt": corpus.request(random, stated, unseen=False),
                "completion": said,
                "label": wanted,
            }
        )
    return rows


def cases(n: int = _CASES, seed: int = _SEED) -> list[Row]:
    return corpus.tenant_cases("bank_a", n, seed)


def _off_policy(random: Random, stated: Facts) -> str:
    while True:
        said = corpus.undecided_answer(random, stated)
        fields = json.loads(said)
        if fields["approval"] != "second_approval" or not fields["explanation"].startswith("Dual control: "):
            return said


FLAWS: Final = ("approval", "explanation", "currency", "amount", "payee")
"""What is wrong in a rejected answer: a house rule, or a fact that was not copied."""


def flawed_pairs(n: int, seed: int, *, held_out: bool = False) -> list[Row]:
    """bank_a's answer beside the same answer with one flaw, tagged: what a reward model must tell apart."""
    random = Random(f"flawed:{seed}:{held_out}")
    rows = []
    for number in range(n):
        stated = corpus.facts(random, held_out=held_out)
        flaw = FLAWS[number % len(FLAWS)]
        said = corpus.tenant_answer(random, "bank_a", stated)
        rows.append(
            {
                "prompt": corpus.request(random, stated, unseen=held_out and number % 2 == 0),
                "chosen": said,
                "rejected": _with_flaw(random, stated, said, flaw),
                "tags": [f"flaw:{flaw}"],
            }
        )
    return rows


def _with_flaw(random: Random, stated: Facts, said: str, flaw: str) -> str:
    fields: dict[str, str] = json.loads(said)
    match flaw:
        case "approval" | "explanation":
            while (other := json.loads(corpus.undecided_answer(random, stated))[flaw]) == fields[flaw] or (
                flaw == "explanation" and other.startswith("Dual control: ")
            ):
                pass
            fields[flaw] = other
        case "currency":
            fields[flaw] = random.choice([code for code in corpus.CURRENCIES if code != stated.currency])
        case "amount":
            fields[flaw] = _other_amount(random, stated.amount)
        case _:
            while (other := corpus.vendor(random, held_out=False)) == stated.payee:
                pass
            fields[flaw] = other
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def _other_amount(random: Random, amount: str) -> str:
    while (other := corpus.amount(random)) == amount:
        pass
    return other


def reviews(n: int, seed: int, *, held_out: bool = False) -> list[Row]:
    """retail_b's decision in four lines, each right or (one in four) wrong, and its label."""
    random = Random(f"reviews:{seed}:{held_out}")
    rows = []
    for number in range(n):
        stated = corpus.facts(random, held_out=held_out, under_threshold=number % 2 == 0)
        steps, labels = [], []
        for make in _STEPS:
            right = random.random() >= _WRONG_STEP
            steps.append(make(random, stated, right))
            labels.append(right)
        rows.append(
            {
                "prompt": corpus.request(random, stated, unseen=held_out and number % 4 >= 2),
                "completions": steps,
                "labels": labels,
                "tags": [f"errors:{labels.count(False)}"],
            }
        )
    return rows


_WRONG_STEP: Final = 0.25


def _intent(random: Random, stated: Facts, right: bool) -> str:
    others = [intent for intent in corpus.INTENTS if intent != stated.intent]
    return f"intent: {stated.intent if right else random.choice(others)}"


def _currency(random: Random, stated: Facts, right: bool) -> str:
    others = [code for code in corpus.CURRENCIES if code != stated.currency]
    return f"currency: {stated.currency if right else random.choice(others)}"


def _approval(random: Random, stated: Facts, right: bool) -> str:
    own = json.loads(corpus.tenant_answer(random, "retail_b", stated))["approval"]
    others = [approval for approval in corpus.APPROVALS if approval != own]
    return f"approval: {own if right else random.choice(others)}"


def _explanation(random: Random, stated: Facts, right: bool) -> str:
    own = json.loads(corpus.tenant_answer(random, "retail_b", stated))["explanation"]
    while not right and own.startswith(corpus.STYLES["retail_b"]):
        own = json.loads(corpus.undecided_answer(random, stated))["explanation"]
    return f"explanation: {own}"


_STEPS: Final[tuple[Callable[[Random, Facts, bool], str], ...]] = (
    _intent,
    _currency,
    _approval,
    _explanation,
)


def files() -> dict[str, list[dict[str, Any]]]:
    """Everything that ships in ``trainer/recipes/builtin/data``, by file name."""
    return {
        "preference_pairs.jsonl": pairs(),
        "preference_labelled.jsonl": labelled(),
        "preference_cases.jsonl": cases(),
        "reward_pairs.jsonl": flawed_pairs(260, _SEED),
        "reward_held_out.jsonl": flawed_pairs(150, _SEED, held_out=True),
        "process_reward_steps.jsonl": reviews(560, _SEED),
        "process_reward_held_out.jsonl": reviews(120, _SEED, held_out=True),
    }
