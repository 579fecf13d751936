"""What a surface is to the pipeline, and what passes between the two."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from router.errors import RouterError
from router.limits import Limits
from router.metering import Usage
from router.policies import CompiledPolicy
from router.resolution import Target
from router.schemas import ClientSchema
from router.surfaces.tools import ToolCall, Tools


class Question(NamedTuple):  # made for every request, and three times as fast to make as a frozen dataclass
    """What a client asked, checked; a field that its surface does not have keeps its default."""

    model: str
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    """Answers to each prompt (OpenAI's ``n``)."""
    temperature: float | None = None
    max_tokens: int | None = None
    tokens_field: str = "max_tokens"
    """What the client calls it."""
    user: str | None = None
    """Not passed on; keeps a user with one version while an alias has canaries."""
    options: Mapping[str, Any] = {}
    """Passed on as they are: top_p, stop, seed, penalties, logprobs."""
    messages: Sequence[Mapping[str, Any]] = ()
    response_format: Mapping[str, Any] | None = None
    logprobs: bool = False
    tools: Tools | None = None
    prompts: Sequence[str | list[int]] = ()
    """Of a completion, or what is to be embedded."""
    echo: Mapping[str, Any] = {}
    """What the answer repeats of the question."""

    @property
    def media(self) -> bool:
        """Whether images or sounds came with it: text parts alone were joined."""
        return any(isinstance(message.get("content"), list) for message in self.messages)


class Order(NamedTuple):
    """One engine request: its bytes, and what the answer to it must look like."""

    body: bytes
    engine_name: str
    public_name: str
    choices: int
    stream: bool
    include_usage: bool
    logprobs: bool
    policy: CompiledPolicy
    tools: Tools | None = None
    echo: Mapping[str, Any] = {}
    own: Callable[[Any], bool] | None = None
    """Whether a decoded answer is what the client asked for: any object, or what satisfies its schema."""

    @property
    def schemas(self) -> Sequence[ClientSchema]:
        """Of the client, to be read before an engine is asked."""
        own = (self.own,) if isinstance(self.own, ClientSchema) else ()
        return own if self.tools is None else (*own, *self.tools.offered.values())

    @property
    def held(self) -> bool:
        """Whether a stream waits until all of it was found good: what was sent cannot be asked for again."""
        judged = self.policy.accepts is not None or self.own is not None or self.tools is not None
        return judged and self.policy.retries > 0


class Choice(NamedTuple):
    content: str | None
    finish_reason: str
    tool_calls: Sequence[ToolCall] = ()
    """Their arguments were already found to satisfy the tools' own schemas."""
    refused: bool = False
    """Whether the engine says that the model declined."""


class Rewritten(NamedTuple):
    body: bytes
    choices: Sequence[Choice]
    """By index."""
    usage: Usage | None


class Streamed(Protocol):
    """The rewriting state of one stream. ``accept`` each event, then ``finish``."""

    @property
    def usage(self) -> Usage | None: ...

    @property
    def contents(self) -> Sequence[str]:
        """Whole text per choice, by index."""
        ...

    @property
    def contents_before_end(self) -> Sequence[str]:
        """The same without what is held back: what a client has when the stream fails under way."""
        ...

    @property
    def finish_reasons(self) -> Sequence[str]: ...

    def accept(self, event: bytes) -> bytes:
        """What may be sent on now (possibly nothing).

        Raises EngineInterrupted (error frame), EngineAnswerMismatch, EngineFailed, OutputTruncated,
        OutputInvalid.
        """
        ...

    def finish(self) -> bytes:
        """The held-back end. Raises EngineInterrupted while a choice has no ``finish_reason``."""
        ...

    def broken(self, error: RouterError) -> bytes:
        """The last event of a stream that had already begun; no proper end ever follows it."""
        ...


class Surface(Protocol):
    @property
    def name(self) -> str:
        """In records and metrics."""
        ...

    @property
    def path(self) -> str:
        """What a client calls."""
        ...

    @property
    def upstream(self) -> str:
        """What an engine is asked at."""
        ...

    @property
    def prefix(self) -> str:
        """Of an answer's id."""
        ...

    @property
    def optional(self) -> bool:
        """Whether an engine may lack ``upstream`` because of its base."""
        ...

    def parse(self, body: bytes, limits: Limits) -> Question:
        """Raises InvalidRequest (``param`` names the field) or UnsupportedParameter."""
        ...

    def order(self, question: Question, target: Target, salt_secret: bytes) -> Order:
        """The policy applied.

        Raises SamplingOutOfBounds, ResponseFormatConflict, UnsupportedParameter, InvalidRequest.
        """
        ...

    def whole(self, data: bytes, order: Order, answer_id: str) -> Rewritten:
        """Raises EngineFailed, EngineAnswerMismatch, EngineInterrupted (no finish reason)."""
        ...

    def streamed(self, order: Order, answer_id: str) -> Streamed: ...

    def refusal(self, error: RouterError) -> bytes:
        """The body of an error response."""
        ...
