"""Requests for words as a client sends them: how long each took, and whether it came whole."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

_LIMIT = 120.0
"""Seconds for a whole answer: far more than any is worth, so that only a lost one ends there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    model: str
    prompt: Sequence[int]
    max_tokens: int
    key: str | None = None
    stream: bool = True
    logprobs: int | None = None

    def body(self) -> bytes:
        asked: dict[str, Any] = {
            "model": self.model,
            "prompt": list(self.prompt),
            "max_tokens": self.max_tokens,
            "temperature": 0,
        }
        if self.stream:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.logprobs is not None:
            asked["logprobs"] = self.logprobs
        return orjson.dumps(asked)

    def headers(self) -> dict[str, str]:
        key = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        return {"Content-Type": "application/json", **key}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Times are of ``time.perf_counter``."""

    fault: str
    """Empty when it came whole."""
    asked: float
    first: float
    """When the first token was there."""
    ended: float
    version: str = ""
    """Which one has answered, as the router says."""
    tokens: int = 0
    top: Mapping[str, float] = field(default_factory=dict)
    """Of the first token: what else was likely, as text -> log-probability."""


async def ask(session: aiohttp.ClientSession, url: str, question: Question) -> Answer:
    asked = time.perf_counter()
    found: dict[str, Any] = {"first": 0.0}
    try:
        async with session.post(
            f"{url}/v1/completions",
            data=question.body(),
            headers=question.headers(),
            timeout=aiohttp.ClientTimeout(total=_LIMIT),
        ) as answer:
            found["version"] = answer.headers.get("x-tenon-version", "")
            if answer.status != 200:
                fault = f"{answer.status}: {(await answer.text())[:200]}"
            elif question.stream:
                fault = await _stream(answer, found)
            else:
                document = orjson.loads(await answer.read())
                found["first"] = time.perf_counter()
                fault = _take(document, found)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        fault = type(error).__name__
    except (ValueError, KeyError, IndexError, TypeError):
        fault = "an answer of another shape"
    ended = time.perf_counter()
    found["first"] = found["first"] or ended
    found.pop("finish", None)
    return Answer(fault=fault, asked=asked, ended=ended, **found)


async def _stream(answer: aiohttp.ClientResponse, found: dict[str, Any]) -> str:
    done = False
    async for line in answer.content:
        if line.startswith(b"data: [DONE]"):
            done = True
        elif line.startswith(b"data: "):
            frame = orjson.loads(line.removeprefix(b"data: "))
            if "error" in frame:
                return str(frame["error"])[:200]
            _take(frame, found)
            found["first"] = found["first"] or time.perf_counter()
    return "" if done and found.get("finish") else "a stream that ended early"


def _take(document: Mapping[str, Any], found: dict[str, Any]) -> str:
    if usage := document.get("usage"):
        found["tokens"] = int(usage["completion_tokens"])
    for choice in document["choices"]:
        said = choice.get("logprobs")
        if said and "top" not in found:
            found["top"] = {str(text): float(value) for text, value in said["top_logprobs"][0].items()}
        found["finish"] = choice.get("finish_reason") or found.get("finish")
    return "" if found.get("finish") else "an answer without an end"
