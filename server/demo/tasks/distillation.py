"""Data of the built-in recipes for distillation and self-training: bank_a's house policy again, once as
answers to learn from a teacher and once as questions whose answers only a verifier knows."""

from __future__ import annotations

from random import Random
from typing import Final

from server.demo import corpus
from server.demo.corpus import Case, Facts, Row

_SEED: Final = 23
_QUESTIONS: Final = 400
_FEW: Final = 128
"""Self-training draws each question eight times and more."""
_CASES: Final = 144
"""A standard error of 0.042 at worst."""


def questions(n: int = _QUESTIONS, seed: int = _SEED) -> list[Case]:
    """Training vendors and phrasings; what a verifier must know stands beside each, the answer does not."""
    return [_question(number, stated, text) for number, (stated, text) in enumerate(_asked(n, seed))]


def answered(n: int = _QUESTIONS, seed: int = _SEED) -> list[Row]:
    """The same questions with bank_a's answers."""
    random = Random(f"answered:{seed}")
    return [
        {"prompt": text, "completion": corpus.tenant_answer(random, "bank_a", stated)}
        for stated, text in _asked(n, seed)
    ]


def cases(n: int = _CASES, seed: int = _SEED) -> list[Case]:
    """Other vendors, and in every second pair other phrasings."""
    return corpus.tenant_cases("bank_a", n, seed)


def _asked(n: int, seed: int) -> list[tuple[Facts, str]]:
    random = Random(f"questions:{seed}")
    asked = []
    for _ in range(n):
        stated = corpus.facts(random, held_out=False)
        asked.append((stated, corpus.request(random, stated, unseen=False)))
    return asked


def _question(number: int, stated: Facts, text: str) -> Case:
    return {
        "id": f"question-{number:04d}",
        "prompt": text,
        "facts": {"amount": stated.amount, "currency": stated.currency, "payee": stated.payee},
        "expect": corpus.expectation("bank_a", stated),
    }


def files() -> dict[str, list[Row]]:
    """File name -> rows."""
    return {
        "distillation_questions.jsonl": questions(),
        "distillation_answered.jsonl": answered(),
        "self_training_questions.jsonl": questions(_FEW, _SEED + 1),
        "distillation_cases.jsonl": cases(),
    }
