"""The API's description (OpenAPI 3.1), made from the routes themselves."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.api.bodies import Streamed, Taken
from server.api.caller import Who
from server.api.guarded import Guarded
from server.api.idempotency import HEADER, WRITES
from server.api.problems import MEDIA_TYPE, Problem

_SCHEMAS: Final = "#/components/schemas/"
_ABOUT: Final = """Tenon's registry: tenants, keys, adapters, versions, aliases, routes, policies and log.

Lists come in pages: follow `next` with `cursor`. Errors are problem documents (RFC 9457) with a stable
`code`. Whatever is another tenant's answers 404 `tenant_not_found`, as what does not exist does. Every write
takes an `Idempotency-Key`. Bodies are parsed strictly: an unknown field, an unknown query parameter or a key
given twice is an error.
"""
_PROBLEMS: Final = {
    400: "What was sent cannot be parsed or is not allowed",
    401: "No credential, or one that is not accepted: nobody learns why",
    403: "Understood, and not permitted: by the caller's role, a gate or a signature",
    404: "It does not exist, or is not the caller's",
    409: "It contradicts what is there now: look again, then retry",
    413: "The body is too large",
    415: "The body has another media type",
    422: "Understood, and refused for what it says",
    500: "Something stored is damaged, or went wrong",
    503: "Not now: try again",
}
_IDEMPOTENCY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key with the same request gets the first answer again, for 24 hours.",
    "schema": {"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": 255},
    "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
}


def install(app: FastAPI) -> None:
    """``app.openapi()`` gives the whole description."""
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not made:
            made.update(describe(app))
        return made

    app.openapi = openapi  # type: ignore[method-assign]


def describe(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=_ABOUT,
        routes=app.routes,
        separate_input_output_schemas=False,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    _define(schemas, "Problem", Problem.model_json_schema(ref_template=_SCHEMAS + "{model}"))
    document["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A key (`tn_…`), the service token, or a token of the identity provider.",
        }
    }
    document["components"]["responses"] = {
        f"Problem{status}": {
            "description": text,
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}},
        }
        for status, text in _PROBLEMS.items()
    }
    for route in app.routes:
        if isinstance(route, Guarded) and route.include_in_schema:
            for method in sorted(route.methods):
                _complete(document["paths"][route.path_format][method.lower()], route, method, schemas)
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _complete(operation: dict[str, Any], route: Guarded, method: str, schemas: dict[str, Any]) -> None:
    requirement, taken = route.requirement, route.taken
    responses = operation["responses"]
    responses.pop("422", None)
    statuses = set(_PROBLEMS) - ({413, 415} if method in WRITES else {413, 415, 422})
    if isinstance(taken, Taken):
        statuses |= {413, 415}
        name = taken.model.__name__
        _define(schemas, name, taken.model.model_json_schema(ref_template=_SCHEMAS + "{model}"))
        content: dict[str, Any] = {"schema": {"$ref": _SCHEMAS + name}}
        if taken.example is not None:
            content["example"] = dict(taken.example)
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    elif isinstance(taken, Streamed):
        statuses |= {413, 415}
        operation["requestBody"] = {
            "required": True,
            "content": {taken.media_type: {"schema": {"type": "string", "format": "binary"}}},
        }
    if method in WRITES:
        parameters = operation.setdefault("parameters", [])
        if all(each["name"].lower() != HEADER for each in parameters):
            parameters.append(_IDEMPOTENCY)
    for status in sorted(statuses):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})
    if requirement.who:
        operation["security"] = [{"bearer": []}]
        operation["x-tenon-roles"] = [who.value for who in Who if who in requirement.who]
    else:
        operation["security"] = []


def _define(schemas: dict[str, Any], name: str, schema: dict[str, Any]) -> None:
    """Add a model and what it is made of; one name means one thing in the whole description."""
    inner = schema.pop("$defs", {})
    for key, value in {name: schema, **inner}.items():
        known = schemas.setdefault(key, value)
        # FastAPI and pydantic differ in how they write defaults of the same model, and in nothing else.
        if set(known.get("properties", ())) != set(value.get("properties", ())):
            raise TypeError(f"two models are called {key}")
