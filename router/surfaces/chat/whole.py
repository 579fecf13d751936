"""rewrite: an engine's answer becomes ours, field by field.

Built from a list of what is known instead of deleting what is not: vLLM adds fields (``prompt_token_ids``,
``kv_transfer_params``, ``prompt_logprobs``) with each release, and a new one must not leak by default.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from router.errors import EngineAnswerMismatch, EngineFailed, EngineInterrupted
from router.metering import read_usage
from router.surfaces.surface import Choice, Order, Rewritten

FINISHED = ("stop", "length")
"""Every other reason (vLLM's ``abort``, ``error``, tool calls nobody asked for) is an unfinished answer."""


def read_object(data: bytes) -> dict[str, Any]:
    """Raises EngineFailed for anything but a JSON object."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise EngineFailed from None
    if not isinstance(value, dict):
        raise EngineFailed
    return value


def check_model(answer: Mapping[str, Any], expected: str) -> None:
    """Raises EngineAnswerMismatch: the one thing an engine says about who answered must be what we asked."""
    if answer.get("model") != expected:
        raise EngineAnswerMismatch


def rewrite(data: bytes, order: Order, answer_id: str) -> Rewritten:
    """A whole answer. Raises EngineFailed, EngineAnswerMismatch, EngineInterrupted (no finish reason)."""
    answer = read_object(data)
    if "error" in answer:
        raise EngineFailed
    check_model(answer, order.engine_name)
    listed = answer.get("choices")
    if answer.get("object") != "chat.completion" or not isinstance(listed, list):
        raise EngineFailed
    by_index = {choice_index(entry, order): entry for entry in listed}
    if len(by_index) != len(listed) or len(by_index) != order.choices:
        raise EngineFailed
    usage = read_usage(answer.get("usage"))
    choices: list[Choice] = []
    public: list[dict[str, Any]] = []
    for index in range(order.choices):
        entry = by_index[index]
        message = entry.get("message")
        content = message.get("content") if isinstance(message, dict) else _MISSING
        if content is not None and not isinstance(content, str):
            raise EngineFailed
        reason = finish_reason(entry)
        if reason is None:
            raise EngineInterrupted
        choices.append(Choice(content, reason))
        public.append(
            {
                "index": index,
                "message": {"role": "assistant", "content": content},
                "logprobs": logprobs(entry, order),
                "finish_reason": reason,
            }
        )
    fields: dict[str, Any] = {
        "id": answer_id,
        "object": "chat.completion",
        "created": created(answer),
        "model": order.public_name,
        "choices": public,
    }
    if usage is not None:
        fields["usage"] = usage.public()
    return Rewritten(orjson.dumps(fields), tuple(choices), usage)


_MISSING = object()


def choice_index(entry: Any, order: Order) -> int:
    """Raises EngineFailed unless it is one of the choices that were asked for."""
    index = entry.get("index") if isinstance(entry, dict) else None
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < order.choices:
        raise EngineFailed
    return index


def finish_reason(entry: Mapping[str, Any]) -> str | None:
    """None while the choice is unfinished; raises EngineInterrupted for a reason that is no proper end."""
    reason = entry.get("finish_reason")
    if reason is None:
        return None
    if reason not in FINISHED:
        raise EngineInterrupted
    return str(reason)


def logprobs(entry: Mapping[str, Any], order: Order) -> dict[str, Any] | None:
    """OpenAI's form only, and only if asked for."""
    value = entry.get("logprobs")
    if not order.logprobs or not isinstance(value, dict):
        return None
    return {"content": _tokens(value.get("content"))}


def _tokens(value: Any) -> list[dict[str, Any]] | None:
    if not isinstance(value, list):
        return None
    return [
        {
            **{name: token.get(name) for name in ("token", "logprob", "bytes")},
            "top_logprobs": [
                {name: top.get(name) for name in ("token", "logprob", "bytes")}
                for top in token.get("top_logprobs") or ()
                if isinstance(top, dict)
            ],
        }
        for token in value
        if isinstance(token, dict)
    ]


def created(answer: Mapping[str, Any]) -> int:
    value = answer.get("created")
    return value if isinstance(value, int) else 0
