"""How answers look: their first words, whether they are JSON, and in which order its keys stand."""

import json
from collections import Counter
from typing import Any, Final

from trainer.datasets.audit.finding import Finding, Outcome
from trainer.datasets.audit.side import Side

_CHECK: Final = "style"
_OPENINGS: Final = 5
_RARE: Final = 0.02
"""Less than this share of an other form is an accident, and listed; more is a mixture."""


def style(train: Side) -> Outcome:
    answers = [(entry.where, text) for entry in train.entries for text in entry.wanted]
    if not answers:
        return Outcome()
    keys = [_keys(text) for _, text in answers]
    objects = [(place, found) for (place, _), found in zip(answers, keys, strict=True) if found is not None]
    share = len(objects) / len(answers)
    orders = Counter(found for _, found in objects)
    openings = Counter(_opening(text, found) for (_, text), found in zip(answers, keys, strict=True))
    figures: dict[str, Any] = {
        "answers": len(answers),
        "json": round(share, 4),
        "openings": [
            {"text": text, "share": round(count / len(answers), 4)}
            for text, count in openings.most_common(_OPENINGS)
        ],
        "keys": [{"order": list(order), "rows": count} for order, count in orders.most_common(_OPENINGS)],
    }
    findings = [*_mixed(answers, keys), *_orders(objects, orders), *_fenced(answers)]
    return Outcome(findings=tuple(findings), figures=figures)


def _mixed(answers: list[tuple[str, str]], keys: list[tuple[str, ...] | None]) -> list[Finding]:
    share = sum(found is not None for found in keys) / len(keys)
    if share in (0, 1):
        return []
    rarer = share < 1 / 2
    odd = [place for (place, _), found in zip(answers, keys, strict=True) if (found is not None) == rarer]
    if min(share, 1 - share) <= _RARE:
        what = (
            f"answers that are {'' if rarer else 'not '}JSON, unlike the others: {len(odd)} of {len(answers)}"
        )
    else:
        what = f"{share:.0%} of the answers are JSON and the rest is not: say in the prompt which is wanted"
    return [Finding(check=_CHECK, severity="warning", what=what, places=tuple(dict.fromkeys(odd)))]


def _orders(objects: list[tuple[str, tuple[str, ...]]], orders: Counter[tuple[str, ...]]) -> list[Finding]:
    """The same keys in another order: the model tosses a coin at each key, and constrained decoding, which
    has one order, fights it."""
    usual: dict[frozenset[str], tuple[str, ...]] = {}
    for order, _ in orders.most_common():
        usual.setdefault(frozenset(order), order)
    places = tuple(place for place, order in objects if usual[frozenset(order)] != order)
    if not places:
        return []
    what = f"JSON answers with the keys of others in another order: {len(places)}"
    return [Finding(check=_CHECK, severity="warning", what=what, places=places)]


def _fenced(answers: list[tuple[str, str]]) -> list[Finding]:
    places = tuple(place for place, text in answers if text.lstrip().startswith("```"))
    if not places or len(places) == len(answers):
        return []
    what = f"answers that begin with a code fence, unlike the others: {len(places)} of {len(answers)}"
    return [Finding(check=_CHECK, severity="warning", what=what, places=places)]


def _opening(text: str, keys: tuple[str, ...] | None) -> str:
    if keys is not None:
        return f'{{"{keys[0][:30]}": …' if keys else "{}"
    return " ".join(text.casefold().split()[:3])[:40]


def _keys(text: str) -> tuple[str, ...] | None:
    """Of a JSON object; None for any other text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(value) if isinstance(value, dict) else None
