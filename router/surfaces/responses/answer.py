"""rewrite: a chat answer as a Response."""

from collections.abc import Sequence
from typing import Any

import orjson

from router.metering import Usage
from router.surfaces.chat.reading import read
from router.surfaces.chat.whole import call_id
from router.surfaces.surface import Order, Rewritten
from router.surfaces.tools import ToolCall


def rewrite(data: bytes, order: Order, answer_id: str) -> Rewritten:
    answer = read(data, order)
    (choice,) = answer.choices
    output: list[dict[str, Any]] = []
    if choice.content or not choice.tool_calls:
        output.append(message(answer_id, choice.content or "", done(choice.finish_reason)))
    output += [call(answer_id, at, made) for at, made in enumerate(choice.tool_calls)]
    public = response(
        order, answer_id, answer.created, output, status=done(choice.finish_reason), usage=answer.usage
    )
    return Rewritten(orjson.dumps(public), answer.choices, answer.usage)


def response(
    order: Order,
    answer_id: str,
    created: int,
    output: Sequence[dict[str, Any]],
    *,
    status: str,
    usage: Usage | None = None,
) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": order.public_name,
        "output": output,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "truncation": "disabled",
        **order.echo,
        "usage": None if usage is None else _usage(usage),
    }


def done(finish_reason: str) -> str:
    return "incomplete" if finish_reason == "length" else "completed"


def message(answer_id: str, text: str | None, status: str) -> dict[str, Any]:
    """``text`` None: nothing yet."""
    return {
        "id": f"msg_{answer_id.rpartition('_')[2]}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [] if text is None else [text_part(text)],
    }


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call(answer_id: str, at: int, made: ToolCall, status: str = "completed") -> dict[str, Any]:
    return {
        "id": f"fc_{answer_id.rpartition('_')[2]}{at:02x}",
        "type": "function_call",
        "call_id": call_id(answer_id, 0, at),
        "name": made.name,
        "arguments": made.arguments,
        "status": status,
    }


def _usage(usage: Usage) -> dict[str, Any]:
    """The details are zero for everybody: cached tokens would tell what else was asked before."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.completion,
    }
