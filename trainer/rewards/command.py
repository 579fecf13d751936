"""A program of the operator as a verifier. Only a recipe can name it: never the data, never an answer."""

import math
from typing import Annotated, Final

from pydantic import Field

from registry import canonical
from registry.canonical import Document
from trainer.rewards.kind import Kind, Resources
from trainer.rewards.program import run_program
from trainer.rewards.verifier import Answer, Verifier, each


class CommandSettings(Document):
    argv: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    """The program and its arguments; no shell reads them. It gets one JSON object on standard input
    (``text``, ``prompt``, ``facts``, ``answer``, ``columns``) and prints one number."""
    timeout: float = Field(default=10.0, gt=0, le=3600)
    """Seconds for one answer."""


def _command(settings: CommandSettings, resources: Resources) -> Verifier:
    def judge(answer: Answer) -> float:
        case = answer.case
        data = {
            "text": answer.text,
            "finished": answer.finished,
            "prompt": [message.as_dict() for message in case.prompt],
            "facts": case.facts,
            "answer": case.answer,
            "columns": case.columns,
        }
        ended = run_program(settings.argv, canonical.encode(data), seconds=settings.timeout)
        if ended.code != 0:
            complaint = ended.complained.decode("utf-8", "replace").strip()[-200:]
            raise ValueError(f"{settings.argv[0]} ended with {ended.code}: {complaint}")
        said = ended.said.decode("utf-8", "replace").strip()
        try:
            score = float(said)
        except ValueError:
            raise ValueError(f"{settings.argv[0]} printed {said[:60]!r}, not one number") from None
        if not math.isfinite(score):
            raise ValueError(f"{settings.argv[0]} printed {said[:60]!r}")
        return score

    return each(judge, seconds=settings.timeout + 5)


KINDS: Final = (
    Kind(
        "command", "a program of yours: JSON on standard input, a number on standard output",
        CommandSettings, _command, binary=False,
    ),
)  # fmt: skip
