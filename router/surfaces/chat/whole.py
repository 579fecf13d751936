"""rewrite: an engine's answer becomes ours, field by field."""

from collections.abc import Sequence
from typing import Any

import orjson

from router.surfaces.chat.reading import read
from router.surfaces.surface import Order, Rewritten
from router.surfaces.tools import ToolCall


def rewrite(data: bytes, order: Order, answer_id: str) -> Rewritten:
    """A whole answer. Raises what :func:`read` raises."""
    answer = read(data, order)
    public: list[dict[str, Any]] = []
    for index, choice in enumerate(answer.choices):
        message: dict[str, Any] = {"role": "assistant", "content": choice.content}
        if choice.tool_calls:
            message["tool_calls"] = _calls(choice.tool_calls, answer_id, index)
        public.append(
            {
                "index": index,
                "message": message,
                "logprobs": answer.logprobs[index],
                "finish_reason": choice.finish_reason,
            }
        )
    fields: dict[str, Any] = {
        "id": answer_id,
        "object": "chat.completion",
        "created": answer.created,
        "model": order.public_name,
        "choices": public,
    }
    if answer.usage is not None:
        fields["usage"] = answer.usage.public()
    return Rewritten(orjson.dumps(fields), answer.choices, answer.usage)


def call_id(answer_id: str, choice: int, call: int) -> str:
    """Ours: the engine's own would be one more thing of its that a client holds."""
    return f"call_{answer_id.rpartition('-')[2].rpartition('_')[2]}{choice:02x}{call:02x}"


def _calls(calls: Sequence[ToolCall], answer_id: str, choice: int) -> list[dict[str, Any]]:
    return [
        {
            "id": call_id(answer_id, choice, index),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate(calls)
    ]
