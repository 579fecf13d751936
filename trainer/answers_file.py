"""Answers that were expensive to get, written down one by one: nothing is asked twice after a crash."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from registry import canonical
from registry.digests import Digest
from trainer.datasets import Case
from trainer.endpoint import Reply
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


def _read(path: Path) -> dict[Digest, Reply]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return {Digest(line["key"]): _reply(line) for line in map(json.loads, whole.splitlines())}


def _reply(line: dict[str, Any]) -> Reply:
    return Reply(line["text"], finished=line["finished"], calls=tuple(line["calls"]))
