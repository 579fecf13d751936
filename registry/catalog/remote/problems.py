"""problem+json (RFC 9457) back into the error that the registry raised, by its code."""

from collections.abc import Iterator
from typing import Any

from registry.canonical import decode
from registry.catalog.remote.errors import RemoteRefused
from registry.errors import InvalidDocument, TenonError
from registry.evidence import Verdict

_MEMBERS = frozenset({"type", "title", "status", "code", "hint", "detail", "instance"})
"""RFC 9457's own and ours; all others are the error's facts."""
_LONGEST = 2000
"""Characters of a message that are shown: it comes from outside."""


def error_of(status: int, body: bytes) -> TenonError:
    """The error behind an answer that is not 2xx."""
    try:
        problem = decode(body)
    except InvalidDocument:
        problem = None
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        return RemoteRefused(f"the answer was status {status} and no Tenon error", answered=status)
    code, title = problem["code"], _shown(problem.get("title"))
    hint = _shown(problem["hint"]) if isinstance(problem.get("hint"), str) else None
    facts = {key: value for key, value in problem.items() if key not in _MEMBERS and key.isidentifier()}
    kind = _kinds().get(code)
    if kind is None:
        return RemoteRefused(f"{title} [{code}]", hint=hint, answered=status, unknown=code)
    return kind(title, hint=hint, **_parsed(facts))


def _parsed(facts: dict[str, Any]) -> dict[str, Any]:
    """A verdict is a noun to whoever catches the error here, as it is on the registry's own machine."""
    if isinstance(facts.get("verdict"), dict):
        try:
            return facts | {"verdict": Verdict.build(facts["verdict"])}
        except InvalidDocument:
            return {key: value for key, value in facts.items() if key != "verdict"}
    return facts


def _shown(text: object) -> str:
    """One line that cannot steer a terminal: messages of a registry are shown to people."""
    return "".join(char if char.isprintable() else " " for char in str(text))[:_LONGEST]


def _kinds() -> dict[str, type[TenonError]]:
    """Code -> class, of every error that is loaded and takes what the root takes."""
    return {
        kind.code: kind
        for kind in _descendants(TenonError)
        if "code" in vars(kind) and kind.__init__ is TenonError.__init__
    }


def _descendants(kind: type[TenonError]) -> Iterator[type[TenonError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)
