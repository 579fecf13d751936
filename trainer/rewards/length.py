"""Verifiers of length, in words: what a reader sees, not what a tokenizer counts."""

from typing import Final, Literal

from pydantic import Field

from registry.canonical import Document
from trainer.rewards.kind import Kind, Resources
from trainer.rewards.verifier import Answer, Verifier, each


class WordLimitSettings(Document):
    limit: int = Field(default=50, ge=1)
    decay: Literal["none", "linear"] = "none"
    """Above the limit: 0 at once, or falling in a line from 1 to 0 at twice the limit."""


def _word_limit(settings: WordLimitSettings, resources: Resources) -> Verifier:
    def judge(answer: Answer) -> float:
        words = count_words(answer.text)
        if words <= settings.limit:
            return 1.0
        if settings.decay == "none":
            return 0.0
        return max(0.0, 1.0 - (words - settings.limit) / settings.limit)

    return each(judge)


def count_words(text: str) -> int:
    """Pieces between white space."""
    return len(text.split())


KINDS: Final = (
    Kind(
        "word_limit", "at most so many words (binary or linear decay)", WordLimitSettings, _word_limit,
        # A decay gives 75 words under a limit of 50 a score of 0.5, and that is no acceptance.
        binary=lambda settings: settings.decay == "none",
    ),
)  # fmt: skip
