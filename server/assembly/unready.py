"""What keeps an engine from serving what it should, as its agent says, and the next step for each."""

import json
from dataclasses import dataclass
from typing import Any, Final

from registry.digests import Digest
from registry.errors import TenonError
from server.engines.errors import AttestationFailed, ContractMismatch

_MOST: Final = 5
"""Versions that are named, each in a row of its own."""
_KNOWN: Final = {each.code: each.hint for each in (AttestationFailed, ContractMismatch)}
_RESTARTS: Final = (
    "it starts afresh by itself once that is over; docs/concepts/engines.md says what can hold it up for ever"
)


@dataclass(frozen=True, slots=True)
class Obstacle:
    what: str
    advice: str


def obstacles(status: int, body: bytes, *, log: str) -> list[Obstacle]:
    """``status`` and ``body``: what the agent's ``/readyz`` answered, status 0 for nothing. ``log``: the file
    to look into. Empty when all is in service that is to be."""
    patience = f"wait a moment; if it stays so, read {log}"
    if status == 0:
        return [Obstacle("it runs and does not answer", patience)]
    try:
        said: Any = json.loads(body)
        doing, waits_for, missing = str(said["doing"]), str(said["waits_for"]), dict(said["not_ready"])
    except (ValueError, KeyError, TypeError):
        return [Obstacle(f"it answers {status}, and not as the agent of an engine does", f"read {log}")]
    found = [
        Obstacle(f"not in service: {_short(version)}: {why}", _advice(str(why), patience))
        for version, why in sorted(missing.items())
    ]
    if len(found) > _MOST:
        more = f"not in service: {len(found) - _MOST} more versions"
        found = [*found[:_MOST], Obstacle(more, "its /state lists them all")]
    if waits_for:
        found.append(Obstacle(f"it serves on as it is, and waits for {waits_for}", _RESTARTS))
    if status != 200 and not found:
        found.append(Obstacle(f"not ready yet: {doing}", patience))
    return found


def _advice(why: str, patience: str) -> str:
    return _KNOWN.get(why.partition(":")[0], patience)


def _short(version: str) -> str:
    try:
        return Digest(version).short
    except TenonError:
        return version[:80]
