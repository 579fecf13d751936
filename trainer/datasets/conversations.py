"""Training rows: conversations whose last word is the assistant's."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from registry.digests import Digest
from trainer.datasets.lines import Reading

Role: TypeAlias = Literal["system", "user", "assistant"]
_ROLES: Final = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn: this answer after these messages. ``line`` is where it stands in its file."""

    prompt: tuple[Message, ...]
    answer: str
    line: int


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]
    line: int

    def examples(self) -> Iterator[Example]:
        """One example for each assistant turn.

        TRL would train a multi-turn completion as one text, the user's turns included. Splitting teaches
        every answer that the file holds, each after exactly the prompt that serving will show the model.
        """
        for place, message in enumerate(self.messages):
            if message.role == "assistant":
                yield Example(self.messages[:place], message.content, self.line)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A checked file of conversations. ``digest`` is of its bytes."""

    name: str
    digest: Digest
    conversations: tuple[Conversation, ...]
    repeated: tuple[int, ...]
    """Lines that say exactly what an earlier line said: allowed, and worth a note."""

    def examples(self) -> tuple[Example, ...]:
        return tuple(example for row in self.conversations for example in row.examples())


def load_dataset(path: Path) -> Dataset:
    """Every row of ``path``; raises DataInvalid with all faults."""
    reading = Reading(path)
    rows: list[Conversation] = []
    for line, value in reading.objects:
        faults, messages = _row(value)
        for what in faults:
            reading.fault(line, what)
        if not faults:
            rows.append(Conversation(messages, line))
    reading.refuse()
    seen: set[tuple[Message, ...]] = set()
    repeated = []
    for row in rows:
        if row.messages in seen:
            repeated.append(row.line)
        seen.add(row.messages)
    return Dataset(reading.name, reading.digest, tuple(rows), tuple(repeated))


def _row(value: dict[str, Any]) -> tuple[list[str], tuple[Message, ...]]:
    faults = [unknown_key(key, ("messages",)) for key in value if key != "messages"]
    if "messages" not in value:
        return [*faults, "messages is missing"], ()
    found, messages = read_messages(value["messages"])
    faults += found
    if not found and messages[-1].role != "assistant":
        faults.append(f"messages must end with the assistant's answer, not with {messages[-1].role}")
    return faults, messages


def unknown_key(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"{key[:40]!r} is not a known key" + (f"; did you mean {near[0]}?" if near else "")


def read_messages(value: Any) -> tuple[list[str], tuple[Message, ...]]:
    """(faults, messages): an optional system message, then user and assistant in turn, none empty."""
    if not isinstance(value, list) or not value:
        return ["messages must be a list with at least one message"], ()
    faults: list[str] = []
    messages: list[Message] = []
    for place, entry in enumerate(value):
        if (trouble := _message_fault(entry)) is not None:
            faults.append(f"messages[{place}]{trouble}")
        else:
            messages.append(Message(cast("Role", entry["role"]), entry["content"]))
    if faults:
        return faults, ()
    turns = messages[1:] if messages[0].role == "system" else messages
    if not turns:
        return ["messages has no user message"], ()
    start = len(messages) - len(turns)
    for place, message in enumerate(turns):
        expected = "user" if place % 2 == 0 else "assistant"
        if message.role != expected:
            # Everything after the first wrong turn is wrong too: one fault says it.
            return [f"messages[{start + place}].role is {message.role}, expected {expected}"], ()
    return [], tuple(messages)


def _message_fault(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return " must be an object with role and content"
    if extra := [key for key in entry if key not in ("role", "content")]:
        return f": {unknown_key(extra[0], ('role', 'content'))}"
    if entry.get("role") not in _ROLES:
        return f".role must be one of {', '.join(_ROLES)}"
    content = entry.get("content")
    if not isinstance(content, str):
        return ".content must be text"
    if not content.strip():
        # An empty answer would train a bare end of turn: a model that says nothing.
        return ".content is empty"
    return None
