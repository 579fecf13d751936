"""How the fake engine calls tools: as vLLM 0.32 does with ``--enable-auto-tool-choice``. Pure.

Without ``strict`` the arguments are any JSON (D15). A function that is asked for by name is called with
finish reason ``stop``; ``auto`` and ``required`` say ``tool_calls``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.digests import Digest
from server.testing.fake_model import answer_text


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: str
    finish: str


def call_of(body: Mapping[str, Any], weights: Digest | None) -> Call | None:
    """``auto`` calls the first tool once: not again when its result is the last thing that was said."""
    tools, choice = body.get("tools") or [], body.get("tool_choice") or "auto"
    if not tools or choice == "none":
        return None
    if choice == "auto" and body["messages"][-1]["role"] == "tool":
        return None
    named = choice["function"]["name"] if isinstance(choice, dict) else None
    function = next(tool["function"] for tool in tools if named in (None, tool["function"]["name"]))
    arguments = answer_text(weights, function.get("parameters") or {}) if function.get("strict") else "12"
    return Call(function["name"], arguments, "stop" if named else "tool_calls")


def message(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    made = {"id": "chatcmpl-tool-fake", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [made]}


def deltas(call: Call) -> list[dict[str, Any]]:
    """The name first, then the arguments in pieces."""
    begun = {"id": "chatcmpl-tool-fake", "type": "function", "index": 0, "function": {"name": call.name}}
    cuts = [call.arguments[at : at + 7] for at in range(0, len(call.arguments), 7)]
    return [
        {"tool_calls": [begun]},
        *({"tool_calls": [{"index": 0, "function": {"arguments": cut}}]} for cut in cuts),
    ]


def has_media(body: Mapping[str, Any]) -> bool:
    return any(
        isinstance(message.get("content"), list) and '"type": "image_url"' in json.dumps(message["content"])
        for message in body.get("messages", ())
    )
