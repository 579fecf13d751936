"""How well an answer's tool calls are those that the case expects."""

import json
import re
from collections import Counter
from typing import Any, Final, Literal

from registry import canonical
from registry.canonical import Document
from registry.errors import InvalidDocument
from trainer.rewards.kind import Kind, Resources
from trainer.rewards.verifier import Answer, Score, Verifier, each

_CALL: Final = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


class ToolCallSettings(Document):
    measure: Literal["precision", "recall", "f1"] = "f1"
    names_only: bool = False
    """Leave the arguments out of account."""


def _tool_call(settings: ToolCallSettings, resources: Resources) -> Verifier:
    def key(name: Any, arguments: Any) -> str:
        whole = {"name": name} if settings.names_only else {"name": name, "arguments": arguments}
        return canonical.encode(whole).decode()

    def judge(answer: Answer) -> Score:
        expected = answer.case.columns.get("calls")
        if not isinstance(expected, list):
            return None
        wanted = Counter(key(call["name"], call.get("arguments", {})) for call in _checked(expected))
        made: Counter[str] = Counter()
        for place, call in enumerate(calls(answer.text)):
            try:
                made[key(call["name"], call.get("arguments", {})) if call else f"broken {place}"] += 1
            except InvalidDocument:
                made[f"broken {place}"] += 1
        if not wanted and not made:
            return 1.0
        right = (wanted & made).total()
        precision = right / made.total() if made else 0.0
        recall = right / wanted.total() if wanted else 0.0
        if settings.measure == "precision":
            return precision
        if settings.measure == "recall":
            return recall
        return 2 * precision * recall / (precision + recall) if right else 0.0

    return each(judge)


def calls(text: str) -> list[dict[str, Any] | None]:
    """Every ``<tool_call>`` of an answer; None for one that cannot be carried out."""
    return [_call(found) for found in _CALL.findall(text)]


def _call(text: str) -> dict[str, Any] | None:
    try:
        found = canonical.decode(text)
    except InvalidDocument:
        return None
    return found if _is_call(found) else None


def _is_call(found: Any) -> bool:
    whole = isinstance(found, dict) and isinstance(found.get("name"), str)
    return whole and isinstance(found.get("arguments", {}), dict)


def _checked(expected: list[Any]) -> list[dict[str, Any]]:
    """Raises ValueError: against a call that is none, every answer would be wrong."""
    for place, call in enumerate(expected):
        if not _is_call(call):
            raise ValueError(
                f'columns.calls[{place}] must be {{"name": "…", "arguments": {{…}}}}, '
                f"not {json.dumps(call)[:80]}"
            )
    return expected


KINDS: Final = (
    Kind(
        "tool_call", "the answer's <tool_call>s are those in the case's columns.calls", ToolCallSettings,
        _tool_call, binary=False,
    ),
)  # fmt: skip
