"""One OpenAI-compatible server over HTTP, as its clients see it. Whatever comes back is to be judged."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from server.mixup.trace import LOGPROBS, Step, Trace, steps_of, text_of

COMPLETIONS: Final = "/v1/completions"
CHAT: Final = "/v1/chat/completions"
_UNREACHED: Final = 0
_CODE: Final = re.compile(r"""["']code["']: ?["']([a-z_]{1,64})["']""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request for words."""

    model: str | None
    prompt: str
    max_tokens: int | None = 16
    """None: the answer ends by itself, as one that has to be whole must."""
    stream: bool = False
    n: int = 1
    salt: str | None = None
    key: str | None = None
    path: str = COMPLETIONS
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"temperature": 0}
        if self.path == CHAT:
            messages = [{"role": "user", "content": self.prompt}]
            body |= {"messages": messages, "logprobs": True, "top_logprobs": LOGPROBS}
        else:
            body |= {"prompt": self.prompt, "logprobs": LOGPROBS}
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        if self.model is not None:
            body["model"] = self.model
        if self.stream:
            body["stream"] = True
        if self.n > 1:  # vLLM refuses several greedy answers; how likely tokens are does not depend on it
            body |= {"n": self.n, "temperature": 0.5}
        if self.salt is not None:
            body["cache_salt"] = self.salt
        return body | dict(self.extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    """0: no answer at all."""
    traces: tuple[Trace, ...] = ()
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cached_tokens: int | None = None
    seconds: float = 0.0
    first_seconds: float = 0.0
    """Until the first byte of words (of a stream; else until all)."""
    text: str = ""
    """Of an error, shortened."""
    moved: bool = False
    """It names a version that was never recorded: somebody has promoted another meanwhile."""
    finished: bool = False
    """Every choice says why it ended: a stream that was cut says nothing."""

    @property
    def answered(self) -> bool:
        return self.status == 200 and bool(self.traces) and self.finished

    @property
    def code(self) -> str:
        """Of an error in OpenAI's envelope, where it has one."""
        found = _CODE.search(self.text)
        return found[1] if found else ""

    @property
    def version(self) -> str:
        """What a Tenon says that the answer comes from."""
        return next((value for name, value in self.headers.items() if name.lower() == "x-tenon-version"), "")

    @property
    def gone(self) -> bool:
        return self.status == _UNREACHED


class Wire:
    """Made anywhere; used and closed in one event loop."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 120.0) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._key = key
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, ask: Ask) -> Reply:
        began = time.perf_counter()
        headers = self._headers(ask.key) | dict(ask.headers)
        try:
            async with self._open().post(
                self.url + ask.path, json=ask.body(), headers=headers, timeout=self._limit()
            ) as answer:
                given = dict(answer.headers)
                if answer.status != 200:
                    text = (await answer.text())[:300]
                    return Reply(
                        status=answer.status, headers=given, text=text, seconds=time.perf_counter() - began
                    )
                if ask.stream:
                    return await _streamed(answer, began)
                whole = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Reply(status=0, text=type(error).__name__, seconds=time.perf_counter() - began)
        spent = time.perf_counter() - began
        return _whole(whole, given, spent)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        bare: bool = False,
        headers: Mapping[str, str] | None = None,
        limit: float | None = None,
    ) -> tuple[int, str]:
        """(status, text) of any other call; ``bare``: without any credential. Status 0: no answer."""
        given = {} if bare else self._headers(key)
        try:
            async with self._open().request(
                method,
                self.url + path,
                json=body,
                headers=given | dict(headers or {}),
                timeout=self._limit(limit),
            ) as answer:
                return answer.status, (await answer.read()).decode("utf-8", "replace")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return 0, type(error).__name__

    async def alive(self) -> bool:
        status, _ = await self.call("GET", "/v1/models", limit=10)
        return status == 200

    async def models(self, key: str | None = None) -> dict[str, str | None] | None:
        """Names that the server lists -> the name of the base below, if it says so; None: no list."""
        status, text = await self.call("GET", "/v1/models", key=key, limit=10)
        try:
            cards = json.loads(text)["data"] if status == 200 else None
            return None if cards is None else {str(card["id"]): card.get("parent") for card in cards}
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    async def version(self) -> str | None:
        status, text = await self.call("GET", "/version", limit=10)
        try:
            return str(json.loads(text)["version"])[:64] if status == 200 else None
        except (ValueError, KeyError, TypeError):
            return None

    def _headers(self, key: str | None) -> dict[str, str]:
        secret = key or self._key
        return {"Authorization": f"Bearer {secret}"} if secret else {}

    def _limit(self, seconds: float | None = None) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=seconds or self._timeout)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # One connection a request: a pooled one that the server is closing would look like a dead server.
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        return self._session


def _whole(body: bytes, headers: Mapping[str, str], spent: float) -> Reply:
    try:
        document = json.loads(body)
        choices = sorted(document["choices"], key=lambda choice: int(choice.get("index", 0)))
        traces = tuple(Trace(text_of(each), steps_of(each.get("logprobs"))) for each in choices)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Reply(
            status=200, headers=headers, text="an answer of another shape", seconds=spent, first_seconds=spent
        )
    return Reply(
        status=200,
        traces=traces,
        model=document.get("model"),
        headers=headers,
        cached_tokens=_cached(document.get("usage")),
        seconds=spent,
        first_seconds=spent,
        finished=all(each.get("finish_reason") for each in choices),
    )


async def _streamed(answer: aiohttp.ClientResponse, began: float) -> Reply:
    steps: dict[int, list[Step]] = {}
    texts: dict[int, str] = {}
    ended: set[int] = set()
    model: str | None = None
    first = 0.0
    async for line in answer.content:
        data = line.strip()
        if not data.startswith(b"data:") or data.endswith(b"[DONE]"):
            continue
        try:
            frame = json.loads(data.removeprefix(b"data:"))
            if "error" in frame:
                return Reply(
                    status=500,
                    headers=dict(answer.headers),
                    text=str(frame["error"])[:300],
                    seconds=time.perf_counter() - began,
                    first_seconds=first,
                )
            model = frame.get("model", model)
            for choice in frame.get("choices", ()):
                at = int(choice.get("index", 0))
                texts[at] = texts.get(at, "") + text_of(choice)
                steps.setdefault(at, []).extend(steps_of(choice.get("logprobs")))
                if choice.get("finish_reason"):
                    ended.add(at)
                if texts[at] or steps[at]:  # a chat begins with a frame that only says who speaks
                    first = first or time.perf_counter() - began
        except (ValueError, KeyError, TypeError, AttributeError):
            return Reply(status=200, headers=dict(answer.headers), text="a frame of another shape")
    traces = tuple(Trace(texts[at], tuple(steps[at])) for at in sorted(texts))
    return Reply(
        status=200,
        traces=traces,
        model=model,
        headers=dict(answer.headers),
        seconds=time.perf_counter() - began,
        first_seconds=first,
        finished=ended == texts.keys(),
    )


def _cached(usage: Any) -> int | None:
    """Absent unless the server was told to say it (vLLM: --enable-prompt-tokens-details)."""
    try:
        return int(usage["prompt_tokens_details"]["cached_tokens"])
    except (KeyError, TypeError, ValueError):
        return None
