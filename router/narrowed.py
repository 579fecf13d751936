"""Clients' own schemas: applied where they ask for less than the policy allows, never for anything else."""

from collections.abc import Mapping
from typing import Any

import orjson

from registry.schemas.narrowing import narrows
from router.errors import ResponseFormatConflict, RouterError, UnsupportedParameter
from router.schemas import ClientSchema, Finding, look

MOST_BYTES = 16 * 1024
"""Of a client's schema."""


class NarrowedSchemas:
    """What the clients of one policy may send instead of its schema."""

    __slots__ = ("_policy", "_scope")

    def __init__(self, scope: str, policy: Mapping[str, Any] | None) -> None:
        """``scope``: the policy's digest. ``policy``: its schema; None when it has none, so that every schema
        narrows it."""
        self._scope = scope
        self._policy = policy

    def schema(self, schema: Mapping[str, Any]) -> ClientSchema:
        """The client's ``schema``. When it is read, that raises UnsupportedParameter for one that engines do
        not enforce, ResponseFormatConflict for one that was not seen to narrow the policy's.

        Raises UnsupportedParameter.
        """
        try:
            spelled = orjson.dumps(schema)
        except TypeError:  # half a surrogate pair, or a number beyond 64 bits
            raise UnsupportedParameter("the schema cannot be applied", param="response_format") from None
        if len(spelled) > MOST_BYTES:
            raise UnsupportedParameter(
                f"a client's schema may have at most {MOST_BYTES} bytes", param="response_format"
            )
        return ClientSchema(spelled, look=self._look, refusal=_refusal, scope=self._scope)

    def _look(self, spelled: bytes) -> Finding:
        found = look(spelled)
        if found.accepts is None or self._policy is None or narrows(orjson.loads(spelled), self._policy):
            return found
        return Finding(None, "", found.weight)


def _refusal(why: str) -> RouterError:
    if why:
        return UnsupportedParameter(
            f"the schema cannot be enforced: {why}",
            hint="keep to the JSON-schema keywords listed in docs/reference/policies.md",
            param="response_format",
        )
    return ResponseFormatConflict(
        "response_format was not seen to accept only what the policy's schema accepts",
        hint="use the policy's own keywords, patterns and formats, and tighten them",
        param="response_format",
    )
