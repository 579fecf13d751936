"""Gate rules as a person types them: ``policy>=0.9``, ``policy>base+0.2``."""

import re
from collections.abc import Sequence

from registry.errors import InvalidInput
from registry.evidence import GatePolicy, Rule

_RULE = re.compile(
    r"(?P<metric>[a-z][a-z0-9_]*)\s*(?:>=\s*(?P<least>[0-9.]+)|>\s*base\s*\+\s*(?P<gain>[0-9.]+))"
)


def parse_gate(rules: Sequence[str]) -> GatePolicy:
    """Raises InvalidInput naming the rule that cannot be read."""
    return GatePolicy(rules=tuple(_parse(rule) for rule in rules))


def _parse(text: str) -> Rule:
    match = _RULE.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"not a gate rule: {text!r}", hint="write METRIC>=VALUE or METRIC>base+VALUE")
    try:
        least, gain = (None if part is None else float(part) for part in match.group("least", "gain"))
    except ValueError:
        raise InvalidInput(f"not a number in {text!r}") from None
    return Rule(metric=match["metric"], at_least=least, over_base=gain)
