"""Answers that were expensive to get, written down one by one: nothing is asked twice after a crash."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from registry import canonical
from registry.digests import Digest
from registry.errors import InvalidDigest
from trainer.datasets import Case
from trainer.endpoint import Reply
from trainer.errors import DataInvalid, Fault
from trainer.recipes.training import Sampling


def key_of(case: Case, sampling: Sampling | None, *, who: str, seed: int, number: int) -> Digest:
    """Names one answer by everything that decides it: the question, who answers, and how it is drawn
    (``sampling`` is None for the likeliest answer)."""
    return canonical.digest_of(
        {
            "messages": [message.as_dict() for message in case.prompt],
            "tools": list(case.tools),
            "sampling": None if sampling is None else sampling.model_dump(),
            "who": who,
            "seed": seed,
            "number": number,
        }
    )


class AnswersFile:
    """A line for each answer, appended as it arrives. Half a line that a crash left is cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known = _read(path)
        self._stream = path.open("a", encoding="utf-8")

    def __contains__(self, key: Digest) -> bool:
        return key in self._known

    def __getitem__(self, key: Digest) -> Reply:
        return self._known[key]

    def proof(self) -> dict[str, Any]:
        """What was answered, and how often: an endpoint has no digest of its own, and answers differently
        tomorrow. Not the file's digest, which depends on the order in which answers arrived."""
        answers = {key: asdict(reply) for key, reply in self._known.items()}
        return {"digest": canonical.digest_of(answers), "count": len(answers)}

    def add(self, key: Digest, reply: Reply) -> None:
        """In the operating system's hands when this returns: killing the process does not lose it."""
        self._known[key] = reply
        self._stream.write(json.dumps({"key": key, **asdict(reply)}, ensure_ascii=False) + "\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._stream.fileno())
        self._stream.close()


def kept_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of a file that grows line by line. Half a last line is cut off: a crash left
    it. Raises DataInvalid for any other line that is no object: the disk or a person did that.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    for number, raw in enumerate(whole.split(b"\n")[:-1], start=1):
        try:
            line = json.loads(raw)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise damaged(path, number)
        yield number, line


def damaged(path: Path, number: int) -> DataInvalid:
    return DataInvalid(
        path.name,
        (Fault(f"{path.name}:{number}", "is damaged"),),
        hint=f"delete line {number} of {path}: what it held is asked again, and the rest is kept",
    )


def _read(path: Path) -> dict[Digest, Reply]:
    known = {}
    for number, line in kept_lines(path):
        try:
            known[Digest(line["key"])] = _reply(line)
        except (KeyError, TypeError, ValueError, InvalidDigest):
            raise damaged(path, number) from None
    return known


def _reply(line: dict[str, Any]) -> Reply:
    return Reply(line["text"], finished=line["finished"], calls=tuple(line["calls"]))
