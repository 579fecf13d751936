"""Asking an OpenAI-compatible server: bounded patience, no ambient settings, and nothing lost on the way.

The retries are ours and not the ``openai`` package's: its own two attempts give up on a teacher that is
restarted, and its schedule can be neither seen nor tested.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any, Final

from trainer.errors import EndpointRefused, EndpointUnreachable
from trainer.recipes.sources import Endpoint

_AGAIN: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that another attempt may not meet; everything else is an answer."""
_SPENT: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""429 with one of these codes stays so however long one waits."""
_SENT: Final = frozenset(
    {"host", "content-type", "content-length", "accept", "accept-encoding", "connection", "user-agent"}
)

Messages = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Retries:
    """Attempt n waits between half and all of ``first * 2**(n-1)`` seconds, never more than ``longest``; a
    server's Retry-After is kept to when it is not longer than ``patience``. The defaults span a minute: a
    restart of the server, not an outage."""

    attempts: int = 7
    first: float = 1.0
    longest: float = 20.0
    patience: float = 120.0

    def pause(self, failed: int, random: Random) -> float:
        """Seconds to wait after the ``failed``-th failure (from 1)."""
        return min(self.longest, self.first * 2.0 ** (failed - 1)) * (0.5 + random.random() / 2)


@dataclass(frozen=True, slots=True)
class Reply:
    """``finished`` is False when the answer was cut off at its longest."""

    text: str
    finished: bool = True
    calls: tuple[dict[str, Any], ...] = ()
    """Tool calls, as OpenAI functions."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question and how its answer is drawn."""

    messages: Messages
    sampling: dict[str, Any] = field(default_factory=dict)


class EndpointClient:
    """``sleep``, ``now`` and ``random`` are for tests. Safe to use from several threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        key: str | None,
        *,
        retries: Retries | None = None,
        sleep: Callable[[float], object] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random: Random | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._retries = retries or Retries()
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait  # so that a failure elsewhere ends every pause at once
        self._now = now
        self._random = random or Random()  # noqa: S311 - jitter
        self._client = _client(endpoint, key)

    def chat(self, messages: Messages, **sampling: Any) -> str:
        """The answer's text. Raises EndpointUnreachable, EndpointRefused."""
        return self.ask(Ask(messages, sampling)).text

    def ask(self, ask: Ask) -> Reply:
        """Raises EndpointUnreachable once the retries are used up, and EndpointRefused at once."""
        import openai

        failed = 0
        while True:
            try:
                return _reply(self._once(ask), self._endpoint)
            except openai.APIStatusError as error:
                if error.status_code not in _AGAIN or _code(error) in _SPENT:
                    raise self._refused(error) from None
                trouble, advised = f"status {error.status_code}", self._advised(error)
            except openai.APITimeoutError:
                trouble, advised = f"no answer in {self._endpoint.timeout:g} s", None
            except openai.APIConnectionError as error:
                cause = error.__cause__ or error
                trouble, advised = f"no connection ({type(cause).__name__})", None
            except (openai.APIError, ValueError) as error:
                # A 200 that is no JSON: a proxy's page, half a body.
                trouble, advised = f"an answer that cannot be read ({type(error).__name__})", None
            failed += 1
            if failed >= self._retries.attempts or self._stop.is_set():
                raise self._unreachable(trouble, failed)
            if advised is not None and advised > self._retries.patience:
                raise self._unreachable(f"{trouble}, and asks to wait {advised:.0f} s", failed)
            self._sleep(max(advised or 0.0, self._retries.pause(failed, self._random)))

    def chat_many(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Reply]]:
        """(place, answer) as they arrive, ``concurrency`` at a time: the caller can keep each at once.

        When one fails for good, nothing new is asked, answers already under way still arrive, and then the
        error is raised.
        """
        waiting = iter(enumerate(asks))
        running: dict[Future[Reply], int] = {}
        failure: BaseException | None = None
        pool = ThreadPoolExecutor(self._endpoint.concurrency, thread_name_prefix="endpoint")
        try:
            while True:
                while failure is None and len(running) < self._endpoint.concurrency:
                    if (following := next(waiting, None)) is None:
                        break
                    running[pool.submit(self.ask, following[1])] = following[0]
                if not running:
                    break
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    place = running.pop(done)
                    if (error := done.exception()) is None:
                        yield place, done.result()
                    else:
                        failure = failure or error
                        self._stop.set()
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self._stop.clear()
        if failure is not None:
            raise failure

    def close(self) -> None:
        self._client.close()

    def _once(self, ask: Ask) -> Any:
        return self._client.chat.completions.create(
            model=self._endpoint.model, messages=list(ask.messages), stream=False, **ask.sampling
        )

    def _advised(self, error: Any) -> float | None:
        """What the server's Retry-After asks for, in seconds."""
        said = error.response.headers.get("retry-after")
        if said is None:
            return None
        with suppress(ValueError):
            return max(0.0, float(said))
        try:
            return max(0.0, (parsedate_to_datetime(said) - self._now()).total_seconds())
        except (ValueError, TypeError):
            return None

    def _refused(self, error: Any) -> EndpointRefused:
        code = f" ({code})" if (code := _code(error)) else ""
        said = " ".join(str(error.message).split())[:200]
        return EndpointRefused(
            f"{self._endpoint.url} refuses model {self._endpoint.model}: status {error.status_code}{code}: "
            f"{said}",
            status=error.status_code,
        )

    def _unreachable(self, trouble: str, failed: int) -> EndpointUnreachable:
        tries = "1 attempt" if failed == 1 else f"{failed} attempts"
        return EndpointUnreachable(
            f"{self._endpoint.url} gives no answer: {trouble} after {tries}", attempts=failed
        )


def _client(endpoint: Endpoint, key: str | None) -> Any:
    """An ``openai`` client that sends exactly our headers: the package otherwise adds what it finds in
    OPENAI_* variables (organization, project, custom headers, a key) and facts about this machine."""
    import openai

    given = {name.lower(): value for name, value in endpoint.headers.items()}
    if key is not None:
        given.setdefault("authorization", f"Bearer {key}")

    def only_ours(request: Any) -> None:
        for name in [name for name in request.headers if name.lower() not in _SENT]:
            del request.headers[name]
        request.headers.update({"user-agent": "tenon", **given})

    return openai.OpenAI(
        api_key="set by only_ours",
        admin_api_key="",
        base_url=endpoint.url,
        max_retries=0,
        timeout=openai.Timeout(endpoint.timeout, connect=min(10.0, endpoint.timeout)),
        http_client=openai.DefaultHttpxClient(event_hooks={"request": [only_ours]}, follow_redirects=False),
    )


def _reply(completion: Any, endpoint: Endpoint) -> Reply:
    """Raises EndpointRefused for a 200 that is no chat completion: the package validates nothing."""
    try:
        choice = completion.choices[0]
        text, calls = choice.message.content or "", choice.message.tool_calls or ()
        if not isinstance(text, str):
            raise TypeError
        return Reply(
            text,
            finished=choice.finish_reason != "length",
            calls=tuple({"name": call.function.name, "arguments": call.function.arguments} for call in calls),
        )
    except (AttributeError, IndexError, TypeError):
        raise EndpointRefused(
            f"{endpoint.url} answers, but not with an OpenAI chat completion",
            hint="the url must be the API's base and end with its /v1",
        ) from None


def _code(error: Any) -> str | None:
    body = error.body
    code = body.get("code") if isinstance(body, dict) else None
    return code if isinstance(code, str) else None
