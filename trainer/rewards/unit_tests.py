"""The answer is a Python program, and the case has tests for it."""

import json
import re
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from registry.canonical import Document
from trainer.rewards.kind import Kind, Resources
from trainer.rewards.program import Ended, run_program
from trainer.rewards.verifier import Answer, Score, Verifier, each

_CAGE: Final = Path(__file__).with_name("cage.py")
_FENCED: Final = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_GRACE: Final = 5.0
"""Seconds for a Python to start on a busy machine."""


class UnitTestSettings(Document):
    tests: str | None = Field(default=None, min_length=1)
    """Python that raises when the answer is wrong; the case's ``columns.tests`` when not given."""
    timeout: int = Field(default=5, ge=1, le=600)
    """Seconds of computing, for one answer."""
    memory_mb: int = Field(default=512, ge=64, le=65_536)
    isolation: Literal["required", "best_effort"] = "required"
    """Namespaces take network and files away from the answer's code. ``required``, the default, refuses the
    recipe where the system does not allow them; ``best_effort`` runs it there under limits of time and memory
    only: with this user's files and network, so that an answer that means harm can do it."""


def _unit_tests(settings: UnitTestSettings, resources: Resources) -> Verifier:
    if settings.isolation == "required" and (trouble := _open(settings)):
        raise ValueError(
            f"unit_tests cannot lock the answer's code in on this machine: {trouble}. Allow user namespaces, "
            "or set isolation: best_effort"
        )

    def judge(answer: Answer) -> Score:
        tests = settings.tests or answer.case.columns.get("tests")
        if not isinstance(tests, str):
            return None
        word = secrets.token_hex(16)
        try:
            ended = _run(code_of(answer.text), tests, word, settings)
        except TimeoutError:
            return 0.0
        said = ended.said.decode("utf-8", "replace")
        if said.startswith("open: "):
            raise ValueError(f"the answer's code could not be locked in: {said[6:]}")
        return float(said == word)

    return each(judge, seconds=settings.timeout + 4 * _GRACE)


def code_of(text: str) -> str:
    """The fenced Python of an answer, or all of it."""
    found = _FENCED.findall(text)
    return "\n".join(found) if found else text


def _open(settings: UnitTestSettings) -> str:
    word = secrets.token_hex(16)
    try:
        said = _run("", "", word, settings).said.decode("utf-8", "replace")
    except (OSError, TimeoutError) as error:
        return str(error)
    return "" if said == word else said.removeprefix("open: ") or "it does not start"


def _run(code: str, tests: str, word: str, settings: UnitTestSettings) -> Ended:
    asked = {
        "code": code,
        "tests": tests,
        "word": word,
        "seconds": settings.timeout,
        "memory": settings.memory_mb << 20,
        "strict": settings.isolation == "required",
    }
    with tempfile.TemporaryDirectory(prefix="tenon-answer-") as folder:
        return run_program(
            [sys.executable, "-I", "-S", "-B", str(_CAGE)],
            json.dumps(asked).encode(),
            seconds=settings.timeout + _GRACE,
            folder=Path(folder),
        )


KINDS: Final = (
    Kind(
        "unit_tests", "the answer's Python passes the case's tests, locked in a process of its own",
        UnitTestSettings, _unit_tests,
    ),
)  # fmt: skip
