"""constrain: the form of an answer; a policy's schema comes first."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from registry import canonical
from registry.errors import InvalidDocument
from registry.policies import MAX_BYTES
from router.errors import InvalidRequest, ResponseFormatConflict, UnsupportedParameter
from router.policies import CompiledPolicy, form
from router.surfaces.surface import Question


class Form(NamedTuple):
    engine: Mapping[str, Any] | None
    """What the engine is told."""
    own: Callable[[Any], bool] | None = None
    """Whether an answer is what the client asked for, beside the policy's schema."""


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_TEXT = Form(None)
_OBJECT = Form({"type": "json_object"}, _is_object)


def response_format(question: Question, policy: CompiledPolicy) -> Form:
    """Raises ResponseFormatConflict, UnsupportedParameter, InvalidRequest."""
    asked = question.response_format
    kind = asked.get("type") if asked is not None else "text"
    if kind not in ("text", "json_object", "json_schema"):
        raise InvalidRequest("response_format.type is unknown", param="response_format")
    found = _policy_s(kind, policy)
    if kind == "json_schema" and asked is not None:
        found = _client_s(_schema(asked), policy)
    if found.engine is not None and found is not _OBJECT and "stop" in question.options:
        raise UnsupportedParameter(
            "stop cannot be combined with a schema: it would cut the JSON", param="stop"
        )
    return found


def _policy_s(kind: str, policy: CompiledPolicy) -> Form:
    if policy.response_format is not None:
        return Form(policy.response_format)
    return _OBJECT if kind == "json_object" else _TEXT


def _client_s(schema: Mapping[str, Any], policy: CompiledPolicy) -> Form:
    if policy.schema_bytes is not None and _spelled(schema) == policy.schema_bytes:
        return Form(policy.response_format)
    if policy.narrowed is not None:
        return Form(form(policy.policy.name, schema), policy.narrowed.schema(schema))
    if policy.response_format is None:
        raise UnsupportedParameter(
            "this route's policy has no schema, and a client's schema is not applied",
            hint="publish the schema as the route's policy, or ask for json_object",
            param="response_format",
        )
    raise ResponseFormatConflict(
        "response_format asks for another schema than the policy's", param="response_format"
    )


def _schema(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    described = asked.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        raise InvalidRequest("response_format.json_schema.schema must be an object", param="response_format")
    return schema


def _spelled(schema: Mapping[str, Any]) -> bytes | None:
    """None for what is no policy's: the canonical spelling takes a millisecond for 10 KB."""
    try:
        return canonical.encode(schema) if len(orjson.dumps(schema)) <= MAX_BYTES else None
    except (TypeError, InvalidDocument):
        return None
