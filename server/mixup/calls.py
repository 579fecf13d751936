"""What a tool is called with (D15)."""

import json
from typing import Any, Final

import jsonschema

from server.mixup.finding import Finding
from server.mixup.ground import Ground

_PARAMETERS: Final = {
    "type": "object",
    "properties": {"amount": {"type": "integer"}, "to": {"enum": ["vendor", "bank"]}},
    "required": ["amount", "to"],
    "additionalProperties": False,
}
_TOOL: Final = {"type": "function", "function": {"name": "pay", "parameters": _PARAMETERS}}
_NAMED: Final = {"type": "function", "function": {"name": "pay"}}
_TRIES: Final = 6


async def arguments(ground: Ground) -> Finding:
    """D15: as clients ask, which is without `strict`."""
    tally = ground.tally("D15")
    asked = [(weights, choice) for weights in ground.weights()[:_TRIES] for choice in (_NAMED, "required")]
    valid = invalid = 0
    for weights, choice in asked:
        body: dict[str, object] = {
            "messages": [{"role": "user", "content": "pay the invoice of the vendor"}],
            "tools": [_TOOL],
            "tool_choice": choice,
            "max_tokens": 64,
            "temperature": 0,
        }
        status, text = await ground.call(ground.name_of(weights), "/v1/chat/completions", body)
        tally.note(status)
        if status == 200:
            good = fits(text)
            valid, invalid = valid + good, invalid + (not good)
    tally.figures.update(valid=valid, invalid=invalid)
    if invalid:
        return tally.finding("present", f"{invalid} of {valid + invalid} calls do not fit the tool's schema")
    if valid:
        return tally.finding("handled", f"all {valid} calls fit; what does not is refused")
    if tally.refused and not tally.failed:
        return tally.finding("handled", "no call that does not fit was passed on")
    if tally.failed:
        return tally.finding("handled", "calls that do not fit end in an error, never in 200")
    return tally.finding("not_applicable", "the server calls no tools")


def fits(text: str) -> bool:
    """Whether every call of the answer fits; an answer that was asked to call and calls nothing does not."""
    try:
        calls: list[Any] = json.loads(text)["choices"][0]["message"]["tool_calls"]
        given = [json.loads(call["function"]["arguments"]) for call in calls]
        for each in given:
            jsonschema.validate(each, _PARAMETERS)
    except (ValueError, KeyError, TypeError, IndexError, jsonschema.ValidationError):
        return False
    return bool(given)
