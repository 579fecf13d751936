"""The fake engine's chat answers in vLLM's shapes, whole or as stream frames. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from registry.digests import Digest
from server.testing import fake_tools
from server.testing.fake_model import answer_text, pieces


@dataclass(frozen=True, slots=True)
class Chat:
    model: str
    tokens: tuple[str, ...]
    """What is said, after truncation."""
    finish: str
    copies: int
    prompt_tokens: int
    include_usage: bool
    call: fake_tools.Call | None = None
    logprobs: int | None = None
    """Alternatives to tell with each token; None: no logprobs."""

    @property
    def usage(self) -> dict[str, int]:
        completion = self.copies * len(self.tokens)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }


_ANY_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


def compose(body: Mapping[str, Any], *, model: str, weights: Digest | None, prompt_tokens: int) -> Chat:
    wanted = body.get("response_format") or {}
    schema = wanted["json_schema"]["schema"] if wanted.get("type") == "json_schema" else None
    if wanted.get("type") == "json_object":
        schema = _ANY_OBJECT
    said = pieces(answer_text(weights, schema))
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or len(said)
    options = body.get("stream_options") or {}
    call = fake_tools.call_of(body, weights)
    if call is not None:
        said = pieces(call.arguments)
        call = replace(call, arguments="".join(said[:limit]))
    return Chat(
        model=model,
        tokens=tuple(said[:limit]),
        finish="length" if limit < len(said) else ("stop" if call is None else call.finish),
        copies=int(body.get("n") or 1),
        prompt_tokens=prompt_tokens,
        include_usage=bool(options.get("include_usage")),
        call=call,
        logprobs=int(body.get("top_logprobs") or 0) if body.get("logprobs") else None,
    )


def whole(chat: Chat, *, drop_finish: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(chat.tokens), "refusal": None}
    if chat.call is not None:
        message = fake_tools.message(chat.call)
    return _envelope(chat, "chat.completion") | {
        "choices": [
            {
                "index": index,
                "message": message,
                "logprobs": _logprobs(chat, chat.tokens),
                "finish_reason": None if drop_finish else chat.finish,
                "stop_reason": None,
            }
            for index in range(chat.copies)
        ],
        "usage": chat.usage,
    }


def frames(chat: Chat, *, drop_finish: bool, end_in_error: bool) -> Iterator[bytes]:
    """What follows ``data: `` in each frame: role, pieces, finish, usage if asked for, ``[DONE]``."""
    for index in range(chat.copies):
        yield _chunk(chat, index, {"role": "assistant", "content": ""}, None)
        if chat.call is not None:
            for delta in fake_tools.deltas(chat.call):
                yield _chunk(chat, index, delta, None)
            continue
        for token in chat.tokens:
            yield _chunk(chat, index, {"content": token}, None, (token,))
    if end_in_error:
        error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}
        yield json.dumps({"error": error}).encode()
    else:
        for index in range(chat.copies):
            if not drop_finish:
                yield _chunk(chat, index, {}, chat.finish)
        if chat.include_usage:
            yield json.dumps(
                _envelope(chat, "chat.completion.chunk") | {"choices": [], "usage": chat.usage}
            ).encode()
    yield b"[DONE]"


def _chunk(
    chat: Chat, index: int, delta: Mapping[str, Any], finish: str | None, tokens: tuple[str, ...] = ()
) -> bytes:
    logprobs = _logprobs(chat, tokens) if tokens else None
    choice = {"index": index, "delta": dict(delta), "logprobs": logprobs, "finish_reason": finish}
    return json.dumps(_envelope(chat, "chat.completion.chunk") | {"choices": [choice]}).encode()


def _logprobs(chat: Chat, tokens: tuple[str, ...]) -> dict[str, Any] | None:
    if chat.logprobs is None:
        return None
    told = [{"token": token, "logprob": -0.5, "bytes": list(token.encode())} for token in tokens]
    return {"content": [{**one, "top_logprobs": [one] * chat.logprobs} for one in told]}


def _envelope(chat: Chat, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-fake", "object": kind, "created": 0, "model": chat.model}
