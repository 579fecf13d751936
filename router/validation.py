"""validate: does a finished answer satisfy its policy?

The engine enforced the schema while decoding; it is checked again because engines were seen to enforce
less than they were asked to, and to cut valid JSON short at ``max_tokens`` with status 200.
"""

from typing import Any

from referencing.exceptions import Unresolvable

from registry import canonical
from registry.errors import InvalidDocument
from router.errors import OutputInvalid, OutputTruncated
from router.policies import CompiledPolicy


def check(policy: CompiledPolicy, content: str | None, finish_reason: str) -> None:
    """Raises OutputTruncated, OutputInvalid. A policy without schema accepts any text, cut or not."""
    if policy.validator is None:
        return
    if finish_reason == "length":
        raise OutputTruncated
    if content is None:
        raise OutputInvalid
    value = _decode(content)
    try:
        satisfied = policy.validator.is_valid(value)
    except (Unresolvable, RecursionError):
        satisfied = False
    if not satisfied:
        raise OutputInvalid


def _decode(content: str) -> Any:
    try:
        return canonical.decode(content)
    except InvalidDocument:
        raise OutputInvalid from None
