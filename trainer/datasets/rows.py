"""One class for each shape that methods learn from. Rows know the line they stand on and nothing of files."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from registry.digests import Digest
from trainer.datasets.messages import Message

Tools: TypeAlias = tuple[dict[str, Any], ...]
"""OpenAI function definitions that the conversation may call."""


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn: this answer after these messages. ``line`` is where it stands in its file."""

    prompt: tuple[Message, ...]
    answer: Message
    line: int
    tools: Tools = field(default=(), hash=False)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Conversation:
    """Single turn, many turns, tool trajectory or demonstration: the assistant has the last word."""

    messages: tuple[Message, ...]
    line: int
    tools: Tools = field(default=(), hash=False)
    weight: float = 1.0
    """How often the row is learned beside one of weight 1."""
    tags: tuple[str, ...] = ()

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What stands before the last answer."""
        return self.messages[:-1]

    def examples(self) -> Iterator[Example]:
        """One example for each assistant turn, calls of tools included; what tools return is only read.

        TRL would train a multi-turn completion as one text, the user's turns included. Splitting teaches
        every answer that the file holds, each after exactly the prompt that serving will show the model.
        """
        for place, message in enumerate(self.messages):
            if message.role == "assistant":
                yield Example(self.messages[:place], message, self.line, self.tools, self.weight)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, the first preferred."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    line: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer, wanted or not."""

    prompt: tuple[Message, ...]
    completion: str
    label: bool
    line: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Steps:
    """A solution in steps, each right or wrong (TRL's stepwise supervision)."""

    prompt: tuple[Message, ...]
    completions: tuple[str, ...]
    labels: tuple[bool, ...]
    line: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One question and what is known of a good answer: verifiers and scorers read it.

    ``expect`` is a JSON Schema fragment; ``tags`` (``intent:transfer``) group results; ``columns`` is what
    else the row carries for a verifier.
    """

    id: str
    prompt: tuple[Message, ...]
    line: int
    facts: dict[str, str] = field(default_factory=dict, hash=False)
    expect: dict[str, Any] | None = field(default=None, hash=False)
    answer: str | None = None
    tags: tuple[str, ...] = ()
    tools: Tools = field(default=(), hash=False)
    columns: dict[str, Any] = field(default_factory=dict, hash=False)


Row: TypeAlias = Conversation | Pair | Labelled | Steps | Case
R = TypeVar("R", bound=Row)

Shape: TypeAlias = Literal["conversations", "pairs", "labelled", "steps", "cases"]
SHAPES: Final[dict[Shape, type[Row]]] = {
    "conversations": Conversation,
    "pairs": Pair,
    "labelled": Labelled,
    "steps": Steps,
    "cases": Case,
}


@dataclass(frozen=True, slots=True)
class Dataset(Generic[R]):
    """A checked source. ``digest`` is of the bytes that were read."""

    name: str
    digest: Digest
    rows: tuple[R, ...]
    repeated: tuple[int, ...] = ()
    """Lines that say exactly what an earlier line said: allowed, and worth a note."""


def examples(rows: tuple[Conversation, ...]) -> tuple[Example, ...]:
    return tuple(example for row in rows for example in row.examples())
