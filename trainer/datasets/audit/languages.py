"""In which languages each role writes, told by the commonest words: sure enough for a distribution."""

import json
import re
from collections import Counter, defaultdict
from typing import Any, Final

from trainer.datasets.audit.finding import Finding, Outcome
from trainer.datasets.audit.side import Side

_CHECK: Final = "languages"
UNKNOWN: Final = "?"
_LISTS: Final = {
    "de": "der das und ist nicht ein eine ich wir sie mit für auf von zu dem bitte auch",
    "en": "the and is not an we you with for on of to in this that please it are was",
    "es": "el los las y es una yo con para por de que en del se su",
    "fr": "le les et est pas une je nous vous avec pour sur de des du que dans au",
    "it": "il gli è non un una io con per di che del della sono",
    "nl": "het en niet een ik wij je met voor op te dat zijn aan er ook",
    "pl": "w nie na się jest z że jak za od po ale dla proszę czy tak",
    "pt": "os é não um uma eu com para por de que em da se",
    "sv": "och det är inte en ett jag vi med för på av till som att har om",
}
"""Without words that are English ones too (``as``, ``do``): requests full of names have few others."""
_COMMON: Final = {name: frozenset(words.split()) for name, words in _LISTS.items()}
_SCRIPTS: Final = (
    ("ja", re.compile(r"[぀-ヿ]")),
    ("zh", re.compile(r"[㐀-鿿]")),
    ("ko", re.compile(r"[가-힯]")),
    ("ru", re.compile(r"[Ѐ-ӿ]")),
    ("ar", re.compile(r"[؀-ۿ]")),
    ("el", re.compile(r"[Ͱ-Ͽ]")),
)
_LEAST: Final = 2
"""Different common words in favour of a language, or nothing is said."""
_MIXED: Final = 0.5


def languages(train: Side) -> Outcome:
    roles: dict[str, Counter[str]] = defaultdict(Counter)
    strange: list[str] = []
    compared = 0
    for entry in train.entries:
        last: dict[str, str] = {}
        for role, text in entry.said():
            last[role] = language(text)
            roles[role][last[role]] += 1
        asked, answered = last.get("user", UNKNOWN), last.get("assistant", UNKNOWN)
        if UNKNOWN not in (asked, answered):
            compared += 1
            if asked != answered:
                strange.append(entry.where)
    figures: dict[str, Any] = {role: dict(sorted(counts.items())) for role, counts in sorted(roles.items())}
    if not strange or len(strange) > _MIXED * compared:
        return Outcome(figures=figures)  # a translator is meant to
    what = f"answers in another language than their question: {len(strange)} of {compared}"
    finding = Finding(check=_CHECK, severity="warning", what=what, places=tuple(strange))
    return Outcome(findings=(finding,), figures=figures)


def language(text: str) -> str:
    text = _prose(text)
    for name, script in _SCRIPTS:
        if len(script.findall(text)) * 3 > len(text):
            return name
    words = set(re.findall(r"[^\W\d_]+", text.casefold()))
    votes = Counter({name: len(common & words) for name, common in _COMMON.items()})
    (best, most), (_, second) = votes.most_common(2)
    return best if most >= _LEAST and most > second else UNKNOWN


def _prose(text: str) -> str:
    """What a JSON answer says; its keys are code."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return " ".join(_texts(value))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inside for text in _texts(item)]
