"""Verifiers of the answer's text."""

import re
from typing import Final, Literal

from pydantic import Field, field_validator

from registry.canonical import Document
from trainer.rewards.kind import Kind, NoSettings, Resources
from trainer.rewards.verifier import Answer, Score, Verifier, each

_REGEX_SECONDS: Final = 2.0
"""On one answer. A pattern that needs longer backtracks without end on some other answer."""


def _exact(settings: NoSettings, resources: Resources) -> Verifier:
    def judge(answer: Answer) -> Score:
        if answer.case.answer is None:
            return None
        return float(answer.text.strip() == answer.case.answer.strip())

    return each(judge)


class ContainsSettings(Document):
    texts: tuple[str, ...] = ()
    """What the answer must contain; the case's facts when empty."""
    ignore_case: bool = False


def _contains(settings: ContainsSettings, resources: Resources) -> Verifier:
    def judge(answer: Answer) -> Score:
        wanted = settings.texts or tuple(answer.case.facts.values())
        if not wanted:
            return None
        text = answer.text.casefold() if settings.ignore_case else answer.text
        return float(all((one.casefold() if settings.ignore_case else one) in text for one in wanted))

    return each(judge)


class RegexSettings(Document):
    pattern: str = Field(min_length=1, max_length=4000)
    match: Literal["search", "whole"] = "search"
    """Somewhere in the answer, or the whole of it."""
    ignore_case: bool = False
    forbid: bool = False
    """1 for answers that do not match."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern


def _regex(settings: RegexSettings, resources: Resources) -> Verifier:
    compiled = re.compile(settings.pattern, re.IGNORECASE if settings.ignore_case else 0)
    look = compiled.search if settings.match == "search" else compiled.fullmatch
    return each(lambda answer: float((look(answer.text) is None) is settings.forbid), seconds=_REGEX_SECONDS)


KINDS: Final = (
    Kind("exact", "the answer is the case's answer, but for white space around it", NoSettings, _exact),
    Kind("contains", "the answer contains these texts, or the case's facts", ContainsSettings, _contains),
    Kind("regex", "the answer matches a regular expression, or does not", RegexSettings, _regex),
)
