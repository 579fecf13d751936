"""Clients' own schemas: applied where they ask for less than the policy allows, never for anything else."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from registry.errors import InvalidDocument
from registry.policies import lint
from registry.schemas.narrowing import narrows
from registry.schemas.validator import Validator
from router.errors import ResponseFormatConflict, UnsupportedParameter

MOST_BYTES = 16 * 1024
"""A client's schema is looked at while others wait: a schema of this size takes some 5 ms, once."""
MOST_KNOWN = 64
"""Schemas of clients that are remembered for a policy; an application has a handful."""

Accepts = Callable[[Any], bool]


class NarrowedSchemas:
    """What was found out about the schemas that clients of one policy sent, refusals too."""

    __slots__ = ("_known", "_policy")

    def __init__(self, policy: Mapping[str, Any] | None) -> None:
        """``policy``: its schema; None when it has none, so that every schema narrows it."""
        self._policy = policy
        self._known: dict[bytes, Accepts | str] = {}

    def validator(self, schema: Mapping[str, Any]) -> Accepts:
        """Whether an answer satisfies the client's ``schema``.

        Raises UnsupportedParameter for a schema that engines do not enforce, ResponseFormatConflict for one
        that was not seen to narrow the policy's.
        """
        try:
            spelled = orjson.dumps(schema)
        except TypeError:  # half a surrogate pair, or a number beyond 64 bits
            raise UnsupportedParameter("the schema cannot be applied", param="response_format") from None
        if len(spelled) > MOST_BYTES:
            raise UnsupportedParameter(
                f"a client's schema may have at most {MOST_BYTES} bytes", param="response_format"
            )
        found = self._known.get(spelled)
        if found is None:
            found = self._look(schema)
            if len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[spelled] = found
        if callable(found):
            return found
        if found:
            raise UnsupportedParameter(
                f"the schema cannot be enforced: {found}",
                hint="keep to the JSON-schema keywords listed in docs/reference/policies.md",
                param="response_format",
            )
        raise ResponseFormatConflict(
            "response_format was not seen to accept only what the policy's schema accepts",
            hint="use the policy's own keywords, patterns and formats, and tighten them",
            param="response_format",
        )

    def _look(self, schema: Mapping[str, Any]) -> Accepts | str:
        """A validator; or why engines do not enforce it; or nothing, when it does not narrow."""
        faults = lint(dict(schema))
        if faults:
            # Three say what is wrong; a name in a pointer is the client's own.
            return "; ".join(str(fault)[:200] for fault in faults[:3])
        if self._policy is not None and not narrows(schema, self._policy):
            return ""
        try:
            return Validator(schema).accepts
        except InvalidDocument:
            return "not a JSON schema"
