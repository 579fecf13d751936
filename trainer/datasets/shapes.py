"""From one JSON object to one row of the wanted shape, or every fault in it.

The names are those of the field (TRL, OpenAI fine-tuning files): ``messages``; ``prompt`` and ``completion``;
``chosen`` and ``rejected``; ``label``; ``completions`` and ``labels``; ``tools``. A prompt is text (one user
message) or a list of messages.
"""

import math
from collections.abc import Callable
from typing import Any, Final

from trainer.datasets.messages import Message, read_messages, unknown_key
from trainer.datasets.rows import Case, Conversation, Labelled, Pair, Row, Shape, Steps
from trainer.datasets.schemas import schema_fault

Faults = list[str]

_COMMON: Final = ("tags", "system")
KEYS: Final[dict[Shape, tuple[str, ...]]] = {
    "conversations": ("messages", "prompt", "completion", "tools", "weight", *_COMMON),
    "pairs": ("prompt", "chosen", "rejected", *_COMMON),
    "labelled": ("prompt", "completion", "label", *_COMMON),
    "steps": ("prompt", "completions", "labels", *_COMMON),
    "cases": ("id", "messages", "prompt", "facts", "expect", "answer", "tools", "columns", *_COMMON),
}


def read_row(value: dict[str, Any], *, shape: Shape, line: int) -> tuple[Faults, Row | None]:
    """(faults, row); the row is None when there are faults."""
    faults = [unknown_key(key, KEYS[shape]) for key in value if key not in KEYS[shape]]
    tags = value.get("tags") or []
    if not _texts(tags):
        faults.append("tags must be a list of text")
        tags = []
    found, row = _READERS[shape](value, line, tuple(tags))
    faults += found
    return faults, None if faults else row


def _conversation(value: dict[str, Any], line: int, tags: tuple[str, ...]) -> tuple[Faults, Row | None]:
    faults, messages = _conversation_messages(value)
    if not faults and messages[-1].role != "assistant":
        faults.append(
            f"messages must end with the assistant's answer, not with {messages[-1].role}{_why(messages)}"
        )
    tools, trouble = _tools(value.get("tools"))
    faults += trouble
    weight = value.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 100:
        faults.append("weight must be a number above 0, at most 100")
        weight = 1.0
    if not faults and not tools and any(message.tool_calls for message in messages):
        faults.append("calls tools, so tools must define them")
    known = {tool["function"]["name"] for tool in tools}
    for call in (call for message in messages for call in message.tool_calls):
        if tools and call.name not in known:
            faults.append(f"calls {call.name[:40]!r}, which tools does not define")
    if faults:
        return faults, None
    return [], Conversation(messages, line, tools, float(weight), tags)


def _why(messages: tuple[Message, ...]) -> str:
    if messages[-1].role == "tool":
        return ": add what the assistant says to the tool's result"
    return ": add it, or delete the row"


def _conversation_messages(value: dict[str, Any]) -> tuple[Faults, tuple[Message, ...]]:
    if "messages" in value:
        if "prompt" in value or "completion" in value:
            return ["give messages, or prompt and completion, not both"], ()
        return read_messages(value["messages"])
    if "prompt" not in value and "completion" not in value:
        return ["messages is missing"], ()
    faults, prompt = _prompt(value)
    found, answer = _answer(value, "completion")
    if faults or found:
        return [*faults, *found], ()
    return [], (*prompt, Message("assistant", answer))


def _pair(value: dict[str, Any], line: int, tags: tuple[str, ...]) -> tuple[Faults, Row | None]:
    if "prompt" not in value and (whole := _common_prompt(value)) is not None:
        value = whole
    faults, prompt = _prompt(value)
    first, chosen = _answer(value, "chosen")
    second, rejected = _answer(value, "rejected")
    faults += first + second
    if not faults and chosen == rejected:
        faults.append("chosen and rejected are the same")
    return (faults, None) if faults else ([], Pair(prompt, chosen, rejected, line, tags))


def _labelled(value: dict[str, Any], line: int, tags: tuple[str, ...]) -> tuple[Faults, Row | None]:
    faults, prompt = _prompt(value)
    found, completion = _answer(value, "completion")
    faults += found
    label = truth(value.get("label"))
    if label is None:
        faults.append("label must be true or false")
    return (
        (faults, None) if faults or label is None else ([], Labelled(prompt, completion, label, line, tags))
    )


def _steps(value: dict[str, Any], line: int, tags: tuple[str, ...]) -> tuple[Faults, Row | None]:
    faults, prompt = _prompt(value)
    steps, labels = value.get("completions"), value.get("labels")
    if not _texts(steps) or not steps or not all(step.strip() for step in steps or ()):
        faults.append("completions must be a list of steps, none empty")
    read = [truth(label) for label in labels] if isinstance(labels, list) else []
    if not read or None in read:
        faults.append("labels must be a list of true and false")
    elif isinstance(steps, list) and len(steps) != len(read):
        faults.append(f"{len(steps)} completions have {len(read)} labels")
    if faults:
        return faults, None
    return [], Steps(prompt, tuple(steps or ()), tuple(bool(label) for label in read), line, tags)


def _case(value: dict[str, Any], line: int, tags: tuple[str, ...]) -> tuple[Faults, Row | None]:
    faults: Faults = []
    name = value.get("id", f"line-{line}")
    if not isinstance(name, str) or not name:
        faults.append("id must be text")
    found, prompt = read_messages(value["messages"]) if "messages" in value else _prompt(value)
    faults += found
    if not found and prompt[-1].role not in ("user", "tool"):
        faults.append("messages must end with the user's question")
    facts = value.get("facts") or {}
    if not isinstance(facts, dict) or not all(isinstance(fact, str) for fact in facts.values()):
        faults.append("facts must map names to text")
    if value.get("expect") is not None and (trouble := schema_fault(value["expect"])) is not None:
        faults.append(f"expect {trouble}")
    if not isinstance(value.get("answer"), str | None):
        faults.append("answer must be text")
    if not isinstance(value.get("columns", {}), dict):
        faults.append("columns must be an object")
    tools, trouble_in_tools = _tools(value.get("tools"))
    faults += trouble_in_tools
    if faults:
        return faults, None
    return [], Case(
        id=name,
        prompt=prompt,
        line=line,
        facts=dict(facts),
        expect=value.get("expect"),
        answer=value.get("answer"),
        tags=tags,
        tools=tools,
        columns=dict(value.get("columns") or {}),
    )


_READERS: Final[dict[Shape, Callable[[dict[str, Any], int, tuple[str, ...]], tuple[Faults, Row | None]]]] = {
    "conversations": _conversation,
    "pairs": _pair,
    "labelled": _labelled,
    "steps": _steps,
    "cases": _case,
}


def truth(value: Any) -> bool | None:
    """A label as files write it: CSV has no booleans."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false", "1", "0"):
        return value.strip().lower() in ("true", "1")
    if isinstance(value, int | float) and not math.isnan(value) and value in (0, 1):
        return bool(value)
    return None


def _prompt(value: dict[str, Any]) -> tuple[Faults, tuple[Message, ...]]:
    prompt = value.get("prompt")
    if prompt is None or (isinstance(prompt, str) and not prompt.strip()):
        return [f"prompt is {'missing' if prompt is None else 'empty'}"], ()
    if isinstance(prompt, str):
        messages: tuple[Message, ...] = (Message("user", prompt),)
    else:
        faults, messages = read_messages(prompt, name="prompt")
        if faults:
            return faults, ()
        if messages[-1].role not in ("user", "tool"):
            return ["prompt must end with the user's question"], ()
    system = value.get("system")
    if system is None or system == "":
        return [], messages
    if not isinstance(system, str) or messages[0].role == "system":
        return ["system must be text, and stand in one place only"], ()
    return [], (Message("system", system), *messages)


def _answer(value: dict[str, Any], key: str) -> tuple[Faults, str]:
    """Text, or a list that holds one assistant message."""
    answer = value.get(key)
    if answer is None:
        return [f"{key} is missing"], ""
    if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], dict):
        message = answer[0]
        if message.get("role") != "assistant" or set(message) - {"role", "content"}:
            return [f"{key}[0] must be an assistant message with content"], ""
        answer = message.get("content")
    if not isinstance(answer, str):
        return [f"{key} must be text or one assistant message"], ""
    if not answer.strip():
        return [f"{key} is empty, and teaches to say nothing: write the answer or delete the row"], ""
    return [], answer


def _common_prompt(value: dict[str, Any]) -> dict[str, Any] | None:
    """Preference files without a prompt column repeat the conversation in both answers."""
    chosen, rejected = value.get("chosen"), value.get("rejected")
    if not (isinstance(chosen, list) and isinstance(rejected, list) and len(chosen) > 1):
        return None
    if chosen[:-1] != rejected[:-1]:
        return None
    return {**value, "prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


def _tools(value: Any) -> tuple[tuple[dict[str, Any], ...], Faults]:
    if value is None:
        return (), []
    good = isinstance(value, list) and all(
        isinstance(tool, dict)
        and isinstance(tool.get("function"), dict)
        and isinstance(tool["function"].get("name"), str)
        for tool in value
    )
    return (tuple(value), []) if good else ((), ["tools must be a list of function definitions"])


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
