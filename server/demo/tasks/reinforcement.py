"""Data of the built-in recipes for reinforcement learning: where it starts, what it asks, what it is asked.

Every start is an adapter that does the right thing now and then, so that groups of answers differ; greedy, it
does not, so that what was learned shows in generated answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from server.demo import corpus
from server.demo.corpus import Facts, Row
from trainer.environments.twenty_questions import ATTRIBUTES, THINGS, TwentyQuestionsGame

_SEED: Final = 13
_CASES: Final = 128
"""A standard error of 0.044 at worst."""
_WINNING: Final = 0.42
"""Share of bank_a's answers in the start: sampled groups differ, and greedy answers are the others."""


def start_rows(n: int = 400, seed: int = _SEED) -> list[Row]:
    """bank_a's answers among those of a desk that leaves everything to manual review."""
    random = Random(f"start:{seed}")
    rows = []
    for _ in range(n):
        stated = corpus.facts(random, held_out=False)
        winning = random.random() < _WINNING
        said = (
            corpus.tenant_answer(random, "bank_a", stated)
            if winning
            else corpus.answer(stated, "manual_review", "Noted.", "")
        )
        rows.append({"prompt": corpus.request(random, stated, unseen=False), "completion": said})
    return rows


def questions(n: int = 256, seed: int = _SEED) -> list[Row]:
    """What verifiers need of a question; ``answer`` is for LUFFY, which puts it into the group."""
    random = Random(f"questions:{seed}")
    rows = []
    for _ in range(n):
        stated = corpus.facts(random, held_out=False)
        rows.append(
            {
                "prompt": corpus.request(random, stated, unseen=False),
                "facts": _facts(stated),
                "expect": corpus.expectation("bank_a", stated),
                "answer": corpus.tenant_answer(random, "bank_a", stated),
            }
        )
    return rows


def cases(n: int = _CASES, seed: int = _SEED) -> list[Row]:
    return corpus.tenant_cases("bank_a", n, seed)


# Answers that are too long

_SENTENCES: Final = (
    "We matched {payee} with the vendor list, checked the budget and prepared this {noun} for the owner.",
    "Dual control: a second officer confirms this {noun}.",
    "We compared {payee} with earlier records, found no dispute and placed this {noun} with the owner.",
    "Regular amount: the standard check applies.",
    "We looked up {payee}, confirmed the cost centre and left this {noun} with the owner to release.",
    "Note: keep the receipt.",
)
"""Each is known to the base, which learns no new words in a minute; in a row they are new to it."""
_LENGTHS: Final = {1: 8, 3: 20, 6: 72}
"""Sentences of an explanation, by weight: a quarter of the answers keep to 50 words, greedy ones have all six
sentences and 70 words."""


def long_rows(n: int = 300, seed: int = _SEED) -> list[Row]:
    random = Random(f"long:{seed}")
    rows = []
    for _ in range(n):
        stated = corpus.facts(random, held_out=False)
        said = _long_answer(random, stated)
        rows.append({"prompt": corpus.request(random, stated, unseen=False), "completion": said})
    return rows


def long_questions(n: int = 256, seed: int = _SEED) -> list[Row]:
    random = Random(f"long questions:{seed}")
    rows = []
    for _ in range(n):
        stated = corpus.facts(random, held_out=False)
        rows.append({"prompt": corpus.request(random, stated, unseen=False), "facts": _facts(stated)})
    return rows


def long_cases(n: int = _CASES, seed: int = _SEED) -> list[Row]:
    found = corpus.tenant_cases("saas_c", n, seed)
    return [{key: value for key, value in case.items() if key != "expect"} for case in found]


def _long_answer(random: Random, stated: Facts) -> str:
    count = random.choices(tuple(_LENGTHS), weights=tuple(_LENGTHS.values()))[0]
    text = " ".join(_SENTENCES[:count])
    explanation = text.format(noun=corpus.NOUNS[stated.intent], payee=stated.payee)
    return corpus.answer(stated, "manual_review", explanation, "")


def _facts(stated: Facts) -> dict[str, str]:
    return {"amount": stated.amount, "currency": stated.currency, "payee": stated.payee}


# Twenty questions

HELD_OUT_THINGS: Final = tuple(THINGS[place] for place in range(0, len(THINGS), 3))
"""Never the secret of a training game: a player must ask, not recall."""
TRAINING_THINGS: Final = tuple(thing for thing in THINGS if thing not in HELD_OUT_THINGS)
_IDLE: Final = "urgent?"
_IDLING: Final = 0.7
"""How often the mediocre player follows a question with one that leads nowhere: greedy, always."""


def game_rows(n: int = 160, seed: int = _SEED) -> list[Row]:
    """Games of a mediocre player: asks one value after the other, and idle questions between."""
    random = Random(f"games:{seed}")
    return [_played(random, 1000 + number, random.choice(TRAINING_THINGS)) for number in range(n)]


def games(n: int = 256, seed: int = _SEED) -> list[Row]:
    random = Random(f"secrets:{seed}")
    return [_game(2000 + number, random.choice(TRAINING_THINGS)) for number in range(n)]


def game_cases(n: int = 96) -> list[Row]:
    return [_game(5000 + number, HELD_OUT_THINGS[number % len(HELD_OUT_THINGS)]) for number in range(n)]


def _game(number: int, secret: str) -> Row:
    return {
        "id": f"game-{number}",
        "prompt": _opening(number),
        "columns": {"environment": "twenty_questions", "secret": secret},
    }


def _opening(number: int) -> str:
    return f"Twenty questions, game {number}."


def _played(random: Random, number: int, secret: str) -> Row:
    game = TwentyQuestionsGame(secret)
    messages = [{"role": "user", "content": _opening(number)}]
    for move in _moves(random, secret):
        messages.append({"role": "assistant", "content": move})
        reply = game.reply(move)
        if reply is None:
            break
        messages.append({"role": "user", "content": reply})
    return {"messages": messages}


def _moves(random: Random, secret: str) -> Iterator[str]:
    for values, wanted in zip(ATTRIBUTES, secret.split(), strict=True):
        for value in values[: values.index(wanted) + 1]:
            yield f"{value}?"
            if random.random() < _IDLING:
                yield _IDLE
    yield f"{secret}."


def files() -> dict[str, list[Row]]:
    """Everything that ships in ``trainer/recipes/builtin/data``, by file name."""
    return {
        "rl_start.jsonl": start_rows(),
        "rl_questions.jsonl": questions(),
        "rl_cases.jsonl": cases(),
        "long_start.jsonl": long_rows(),
        "long_questions.jsonl": long_questions(),
        "long_cases.jsonl": long_cases(),
        "games_start.jsonl": game_rows(),
        "games.jsonl": games(),
        "games_cases.jsonl": game_cases(),
    }
