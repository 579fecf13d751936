"""constrain: the form of an answer; a policy's schema comes first."""

from collections.abc import Mapping
from typing import Any

from registry import canonical
from registry.errors import InvalidDocument
from router.errors import InvalidRequest, ResponseFormatConflict, UnsupportedParameter
from router.policies import CompiledPolicy
from router.surfaces.surface import Question


def response_format(question: Question, policy: CompiledPolicy) -> Mapping[str, Any] | None:
    """Raises ResponseFormatConflict, UnsupportedParameter, InvalidRequest."""
    asked = question.response_format
    kind = asked.get("type") if asked is not None else "text"
    if kind not in ("text", "json_object", "json_schema"):
        raise InvalidRequest("response_format.type is unknown", param="response_format")
    if policy.response_format is None:
        if kind == "json_schema":
            raise UnsupportedParameter(
                "this route's policy has no schema, and a client's schema is not applied",
                hint="publish the schema as the route's policy, or ask for json_object",
                param="response_format",
            )
        return {"type": "json_object"} if kind == "json_object" else None
    if kind == "json_schema" and asked is not None and not _same_schema(asked, policy):
        raise ResponseFormatConflict(
            "response_format asks for another schema than the policy's", param="response_format"
        )
    if "stop" in question.options:
        raise UnsupportedParameter(
            "stop cannot be combined with a policy's schema: it would cut the JSON", param="stop"
        )
    return policy.response_format


def _same_schema(asked: Mapping[str, Any], policy: CompiledPolicy) -> bool:
    described = asked.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    try:
        return schema is not None and canonical.encode(schema) == policy.schema_bytes
    except InvalidDocument:
        return False
