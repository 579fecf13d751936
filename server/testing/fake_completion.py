"""The fake engine's raw completions in vLLM's shapes, whole or as stream frames. Pure.

As vLLM 0.32: ``prompt`` is a text, token ids, or a list of either; answers of a batch are numbered prompt by
prompt; ``max_tokens`` is 16 unless given; the last piece of a stream carries its finish reason.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.digests import Digest
from server.testing.fake_model import answer_text, fake_logprobs, pieces


@dataclass(frozen=True, slots=True)
class Completion:
    model: str
    texts: tuple[tuple[str, ...], ...]
    """Pieces of each answer, after truncation."""
    finish: tuple[str, ...]
    logprobs: tuple[tuple[Mapping[str, float], ...] | None, ...]
    """Of each piece of each answer."""
    prompt_tokens: int
    include_usage: bool

    @property
    def usage(self) -> dict[str, int]:
        completion = sum(len(text) for text in self.texts)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }


def prompts_of(body: Mapping[str, Any]) -> list[list[int]]:
    """Token ids of every prompt; text counts byte by byte."""
    prompt = body["prompt"]
    many = [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt
    return [list(one.encode()) if isinstance(one, str) else list(one) for one in many]


def compose(
    body: Mapping[str, Any], prompts: Sequence[list[int]], *, model: str, weights: Sequence[Digest | None]
) -> Completion:
    """``weights``: who answers each prompt."""
    wanted = body.get("response_format") or {}
    schema = wanted["json_schema"]["schema"] if wanted.get("type") == "json_schema" else None
    limit, copies = int(body.get("max_tokens") or 16), int(body.get("n") or 1)
    texts: list[tuple[str, ...]] = []
    finish: list[str] = []
    logprobs: list[tuple[Mapping[str, float], ...] | None] = []
    for prompt, answering in zip(prompts, weights, strict=True):
        said = pieces(answer_text(answering, schema))
        tables = _tables(body, prompt, answering, min(limit, len(said)))
        for _ in range(copies):
            texts.append(tuple(said[:limit]))
            finish.append("length" if limit < len(said) else "stop")
            logprobs.append(tables)
    return Completion(
        model=model,
        texts=tuple(texts),
        finish=tuple(finish),
        logprobs=tuple(logprobs),
        prompt_tokens=sum(len(prompt) for prompt in prompts),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
    )


def whole(found: Completion) -> dict[str, Any]:
    choices = [
        _choice(index, "".join(text), found.finish[index], _told(text, found.logprobs[index]))
        for index, text in enumerate(found.texts)
    ]
    return _envelope(found) | {"choices": choices, "usage": found.usage}


def frames(found: Completion) -> Iterator[bytes]:
    for index, text in enumerate(found.texts):
        tables = found.logprobs[index]
        for at, piece in enumerate(text):
            reason = found.finish[index] if at == len(text) - 1 else None
            table = None if tables is None else tables[at : at + 1]
            choice = _choice(index, piece, reason, _told((piece,), table))
            yield json.dumps(_envelope(found) | {"choices": [choice]}).encode()
    if found.include_usage:
        yield json.dumps(_envelope(found) | {"choices": [], "usage": found.usage}).encode()
    yield b"[DONE]"


def _tables(
    body: Mapping[str, Any], prompt: list[int], weights: Digest | None, count: int
) -> tuple[Mapping[str, float], ...] | None:
    asked = body.get("logprobs")
    if not asked:
        return None
    return tuple(
        {f"token_id:{token}": value for token, value in fake_logprobs(weights, [*prompt, *[0] * at])[:asked]}
        for at in range(count)
    )


def _told(text: Sequence[str], tables: Sequence[Mapping[str, float]] | None) -> dict[str, Any] | None:
    if tables is None:
        return None
    return {
        "text_offset": [4 * at for at in range(len(text))],
        "token_logprobs": [max(table.values()) for table in tables],
        "tokens": list(text),
        "top_logprobs": [dict(table) for table in tables],
    }


def _choice(index: int, text: str, reason: str | None, logprobs: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": reason,
        "stop_reason": None,
        "token_ids": None,
        "prompt_token_ids": None,
    }


def _envelope(found: Completion) -> dict[str, Any]:
    return {"id": "cmpl-fake", "object": "text_completion", "created": 0, "model": found.model}
