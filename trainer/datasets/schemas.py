"""What may stand where a JSON Schema is expected."""

from typing import Any


def schema_fault(schema: Any) -> str | None:
    """Why ``schema`` is not a JSON Schema, or None. A schema may not point outside itself."""
    import jsonschema

    if not isinstance(schema, dict):
        return "must be a JSON Schema object"
    if (ref := _outward(schema)) is not None:
        return f"points outside itself ({ref[:80]})"
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        return f"is not a JSON Schema: {error.message[:200]}"
    return None


def _outward(value: Any) -> str | None:
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str) and not ref.startswith("#"):
            return ref
        return next((found for part in value.values() if (found := _outward(part))), None)
    if isinstance(value, list):
        return next((found for part in value if (found := _outward(part))), None)
    return None
