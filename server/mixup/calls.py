"""What a tool is called with (D15)."""

import json
from typing import Any, Final

import jsonschema

from server.mixup.finding import Finding
from server.mixup.ground import Ground

_PARAMETERS: Final = {
    "type": "object",
    # Nothing without a longest form: adapters that babble would go on with an integer until the limit.
    "properties": {"amount": {"enum": [12, 120, 1200]}, "to": {"enum": ["vendor", "bank"]}},
    "required": ["amount", "to"],
    "additionalProperties": False,
}
_TOOL: Final = {"type": "function", "function": {"name": "pay", "parameters": _PARAMETERS}}
_NAMED: Final = {"type": "function", "function": {"name": "pay"}}
_TRIES: Final = 6
_TOKENS: Final = 256
"""What a Tenon's policy allows unless told otherwise. The longest calls here are some 30 tokens, and spaces;
one that is cut short is refused, and shows nothing."""
_NO_SUCH_WAY: Final = frozenset({404, 405, 501})


async def arguments(ground: Ground) -> Finding:
    """D15: as clients ask, which is without `strict`."""
    tally = ground.tally("D15")
    asked = [(weights, choice) for weights in ground.weights()[:_TRIES] for choice in (_NAMED, "required")]
    valid = invalid = 0
    said = set()
    for weights, choice in asked:
        body: dict[str, object] = {
            "messages": [{"role": "user", "content": "pay the invoice of the vendor"}],
            "tools": [_TOOL],
            "tool_choice": choice,
            "max_tokens": _TOKENS,
            "temperature": 0,
        }
        status, text = await ground.call(ground.name_of(weights), "/v1/chat/completions", body)
        tally.note(status)
        said.add(status)
        if status == 200:
            tally.judged += 1
            good = fits(text)
            valid, invalid = valid + good, invalid + (not good)
    tally.figures.update(valid=valid, invalid=invalid)
    if invalid:
        return tally.finding("present", f"{invalid} of {valid + invalid} calls do not fit the tool's schema")
    if said <= _NO_SUCH_WAY:
        return tally.finding("not_applicable", "the server calls no tools")
    if tally.failed:
        return tally.finding("not_tested", f"{tally.failed} of {len(asked)} calls failed")
    if not valid:
        return tally.finding("not_tested", f"no call came through: all {tally.refused} were refused")
    return tally.finding("handled", f"all {valid} calls fit; what does not is refused")


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
