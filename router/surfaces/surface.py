"""What a surface is to the pipeline, and what passes between the two."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from router.errors import RouterError
from router.limits import Limits
from router.metering import Usage
from router.policies import CompiledPolicy
from router.resolution import Target


class Question(NamedTuple):  # made for every request, and three times as fast to make as a frozen dataclass
    """What a client asked, checked; a field that its surface does not have keeps its default."""

    model: str
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    """Answers to each prompt (OpenAI's ``n``)."""
    temperature: float | None = None
    max_tokens: int | None = None
    user: str | None = None
    """Not passed on; keeps a user with one version while an alias has canaries."""
    options: Mapping[str, Any] = {}
    """Passed on as they are: top_p, stop, seed, penalties, logprobs."""
    messages: Sequence[Mapping[str, Any]] = ()
    response_format: Mapping[str, Any] | None = None
    logprobs: bool = False


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


class Choice(NamedTuple):
    content: str | None
    finish_reason: str


class Rewritten(NamedTuple):
    body: bytes
    choices: Sequence[Choice]
    """By index."""
    usage: Usage | None


class Streamed(Protocol):
    """The rewriting state of one stream. ``accept`` each event, then ``finish``."""

    usage: Usage | None

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

    def broken(self, error: RouterError) -> bytes:
        """The last event of a stream that had already begun."""
        ...
