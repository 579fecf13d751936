"""One vLLM over HTTP: exactly the calls the agent makes. Shapes checked against vLLM 0.32.

Two kinds of failure are kept apart, because they mean different things for trust: EngineUnreachable says
nothing about a slot (ask again), EngineAnswerUnusable is an answer that proves nothing (do not serve).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote

import aiohttp

from registry.canonical import decode
from registry.errors import InvalidDocument
from registry.fingerprint import TOP_OBSERVED, TopLogprobs
from server.engines.errors import EngineAnswerUnusable, EngineLoadFailed, EngineUnreachable

_UNFINISHED = re.compile(rb"^vllm:num_requests_(running|waiting)(?:\{[^}\n]*\})? ([0-9.e+]+)\s*$", re.M)
_TOKENS = re.compile(rb"^vllm:(?:prompt|generation)_tokens_total(?:\{[^}\n]*\})? ([0-9.e+]+)\s*$", re.M)
_SLICE: Final = 8192
"""Tokens: sixty-four probes of a hundred are one request."""
_AT_ONCE: Final = 2048
"""Tokens of prompts that an engine answers within its patience: for more it has longer, or one tenant's long
probes would pass for a hung engine."""
_TOKEN = "token_id:"  # noqa: S105 (vLLM's spelling of a token's number)


class VllmClient:
    """Made anywhere; opens its connections on first use and must be closed in the same event loop."""

    def __init__(self, url: str, *, timeout: float = 120.0) -> None:
        """``url``: http or http+unix. ``timeout``: seconds for a whole answer. Generous, because the first
        generation of a boot may compile kernels (27 s were seen on a busy CPU)."""
        self._socket, self._url = _split(url.rstrip("/"))
        self._timeout = self._patience = timeout
        self._session: aiohttp.ClientSession | None = None

    def limit(self, seconds: float) -> None:
        """For answers to proofs from now on: the engine has shown how fast it is. A load may take longer."""
        self._patience = min(seconds, self._timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def answers(self) -> bool:
        """Whether the server is up: /health and /v1/models both say 200. Never raises."""
        try:
            health, _ = await self._call("GET", "/health", limit=5)
            models, _ = await self._call("GET", "/v1/models", limit=5)
        except EngineUnreachable:
            return False
        return health == models == 200

    async def health(self) -> bool:
        try:
            status, _ = await self._call("GET", "/health", limit=10)
        except EngineUnreachable:
            return False
        return status == 200

    async def unfinished(self) -> int:
        """Requests that vLLM works on or keeps waiting. Raises EngineAnswerUnusable when it does not say."""
        status, answer = await self._call("GET", "/metrics", limit=5)
        if status != 200:
            raise EngineAnswerUnusable(f"the engine answered {status} to /metrics")
        found = _UNFINISHED.findall(answer)
        if {name for name, _ in found} != {b"running", b"waiting"}:
            raise EngineAnswerUnusable("the engine's metrics do not say what it works on")
        return round(sum(float(count) for _, count in found))

    async def made(self) -> float | None:
        """Tokens read and generated since its start; None when it does not say. Never raises."""
        try:
            status, answer = await self._call("GET", "/metrics", limit=min(5, self._patience))
        except EngineUnreachable:
            return None
        found = _TOKENS.findall(answer)
        return sum(map(float, found)) if status == 200 and found else None

    async def version(self) -> str:
        answer = await self._json("GET", "/version")
        version = answer.get("version")
        if not isinstance(version, str):
            raise EngineAnswerUnusable("the engine did not say its version")
        return version

    async def models(self) -> dict[str, str | None]:
        """Every name that the engine answers to -> the folder or base it came from."""
        answer = await self._json("GET", "/v1/models")
        try:
            return {str(card["id"]): card.get("root") for card in answer["data"]}
        except (KeyError, TypeError, AttributeError):
            raise EngineAnswerUnusable("the engine's list of models has another shape") from None

    async def load(self, name: str, folder: Path) -> None:
        """Raises EngineLoadFailed (``facts['status']``) when vLLM refuses; the engine survives that.

        Never with ``load_inplace``: it switches weights under requests in flight (D6).
        """
        body = {"lora_name": name, "lora_path": str(folder)}
        status, answer = await self._call("POST", "/v1/load_lora_adapter", body)
        if status != 200:
            raise EngineLoadFailed(
                f"the engine refused the adapter ({status}): {_why(answer)}", status=status
            )

    async def unload(self, name: str) -> None:
        """Only makes vLLM forget the name: the weights stay until its LRU drops them. The agent never calls
        this, because a name in use then kills the engine (D5); it is for people and tests."""
        status, answer = await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        if status != 200:
            raise EngineLoadFailed(f"the engine refused to unload ({status}): {_why(answer)}", status=status)

    async def tokenize(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool, model: str
    ) -> tuple[int, ...]:
        """The token ids that a chat request with these messages would start from."""
        answer = await self._json(
            "POST",
            "/tokenize",
            {"model": model, "messages": list(messages), "add_generation_prompt": add_generation_prompt},
            limit=self._patience,
        )
        tokens = answer.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise EngineAnswerUnusable("the engine's token ids have another shape")
        return tuple(tokens)

    async def probe(
        self, *, model: str, prompts: Sequence[Sequence[int]], cache_salt: str
    ) -> tuple[TopLogprobs, ...]:
        """The most likely first tokens after each prompt, in order.

        One request as a rule, one after another for long prompts: what comes to vLLM meanwhile would wait
        for all of them. ``cache_salt`` must be new each time, or old weights could answer from the prefix
        cache (D7). Generation log-probabilities on purpose: ``prompt_logprobs`` can kill a LoRA engine (D11).
        """
        tables: list[TopLogprobs] = []
        for some in _slices(prompts):
            tables += await self._probe(model, some, cache_salt)
        return tuple(tables)

    async def _probe(
        self, model: str, prompts: Sequence[Sequence[int]], cache_salt: str
    ) -> tuple[TopLogprobs, ...]:
        tokens = sum(map(len, prompts))
        answer = await self._json(
            "POST",
            "/v1/completions",
            {
                "model": model,
                "prompt": [list(prompt) for prompt in prompts],
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": TOP_OBSERVED,
                "return_tokens_as_token_ids": True,
                "cache_salt": cache_salt,
            },
            limit=min(self._patience * max(1.0, tokens / _AT_ONCE), self._timeout),
        )
        if answer.get("model") != model:
            raise EngineAnswerUnusable("another model answered the probe", answered=answer.get("model"))
        try:
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            tables = tuple(_table(choice["logprobs"]["top_logprobs"][0]) for choice in choices)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise EngineAnswerUnusable("the engine's log-probabilities have another shape") from None
        if len(tables) != len(prompts):
            raise EngineAnswerUnusable(f"{len(tables)} answers to {len(prompts)} probes")
        return tables

    async def _json(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, limit: float | None = None
    ) -> dict[str, Any]:
        status, answer = await self._call(method, path, body, limit=limit)
        if status != 200:
            raise EngineAnswerUnusable(
                f"the engine answered {status} to {path}: {_why(answer)}", status=status
            )
        try:
            value = decode(answer)
        except InvalidDocument:
            value = None
        if not isinstance(value, dict):
            raise EngineAnswerUnusable(f"the engine's answer to {path} is not a JSON object")
        return value

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, limit: float | None = None
    ) -> tuple[int, bytes]:
        if self._session is None:
            # Not pooled for long: vLLM closes idle connections after 5 s, and a request that meets the
            # closing one would look like a dead engine.
            connector: aiohttp.BaseConnector = (
                aiohttp.TCPConnector(keepalive_timeout=2)
                if self._socket is None
                else aiohttp.UnixConnector(self._socket, keepalive_timeout=2)
            )
            self._session = aiohttp.ClientSession(connector=connector)
        clock = aiohttp.ClientTimeout(total=limit or self._timeout)
        try:
            async with self._session.request(method, self._url + path, json=body, timeout=clock) as answer:
                return answer.status, await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise EngineUnreachable(f"no answer from the engine to {path}: {type(error).__name__}") from None


def _slices(prompts: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    """Of at most _SLICE tokens, or one prompt."""
    some: list[Sequence[int]] = []
    tokens = 0
    for prompt in prompts:
        if some and tokens + len(prompt) > _SLICE:
            yield some
            some, tokens = [], 0
        some.append(prompt)
        tokens += len(prompt)
    if some:
        yield some


def _split(url: str) -> tuple[str | None, str]:
    """(path of the unix socket or None, URL to ask)."""
    scheme, _, rest = url.partition("://")
    return (unquote(rest), "http://localhost") if scheme == "http+unix" else (None, url)


def _table(entries: Mapping[str, float]) -> TopLogprobs:
    """``{"token_id:5": -0.1, …}`` as pairs, most likely first. vLLM adds the sampled token as a 21st entry
    when it is not among the first 20; it is dropped, so that every table has one meaning."""
    pairs = []
    for key, logprob in entries.items():
        if not key.startswith(_TOKEN):
            raise ValueError(key)
        pairs.append((int(key.removeprefix(_TOKEN)), float(logprob)))
    return tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:TOP_OBSERVED])


def _why(answer: bytes) -> str:
    """vLLM's own words, shortened: for operators, never passed on to tenants."""
    try:
        return str(decode(answer)["error"]["message"])[:300]
    except (InvalidDocument, KeyError, TypeError):
        return answer[:120].decode("utf-8", "replace") or "no reason given"
