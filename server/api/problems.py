"""Errors as problem+json (RFC 9457): the only renderer of the control API."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from registry.errors import GateRefused, TenonError, UnsupportedSchema
from registry.evidence import Verdict
from registry.routing.errors import RouteInvalid, RouteRefused

MEDIA_TYPE = "application/problem+json"
_MANY_FAULTS = (RouteInvalid, RouteRefused, UnsupportedSchema)
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


class Problem(BaseModel):
    """Why a request failed: ``code`` is stable and meant for programs, ``title`` and ``hint`` for people."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(examples=["urn:tenon:error:tenant_not_found"])
    title: str = Field(examples=["there is no tenant 'bank_x'"])
    status: int = Field(ge=400, le=599, examples=[404])
    code: str = Field(pattern=r"^[a-z0-9_]+$", examples=["tenant_not_found"])
    """docs/reference/errors.md lists all of them."""
    hint: str | None = None
    verdict: Verdict | None = None
    """Of a gate that refused."""
    faults: tuple[str, ...] | None = None
    """All of them, where there may be many: of rules (with a request that shows each), of a schema."""


def problem(
    *,
    status: int,
    code: str,
    title: str,
    hint: str = "",
    verdict: Verdict | None = None,
    faults: tuple[str, ...] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body = Problem(
        type=f"urn:tenon:error:{code}",
        title=title,
        status=status,
        code=code,
        hint=hint or None,
        verdict=verdict,
        faults=faults,
    )
    extra = {"WWW-Authenticate": 'Bearer realm="tenon"'} if status == 401 else {}
    return JSONResponse(
        body.model_dump(mode="json", exclude_none=True),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers=extra | dict(headers or {}),
    )


def install(app: FastAPI) -> None:
    """Every way a request can fail ends in one of these; stack traces never leave the process."""

    @app.exception_handler(TenonError)
    async def deliberate(_: Request, error: TenonError) -> JSONResponse:
        return of(error)

    @app.exception_handler(RequestValidationError)
    async def unparseable(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors())
        return problem(status=400, code="invalid_input", title=faults)

    @app.exception_handler(HTTPException)
    async def framework(_: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "http_error")
        return problem(status=error.status_code, code=code, title=str(error.detail), headers=error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        return problem(status=500, code="internal", title="something went wrong in the control plane")


def of(error: TenonError, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    verdict = error.facts.get("verdict") if isinstance(error, GateRefused) else None
    faults = error.facts.get("faults") if isinstance(error, _MANY_FAULTS) else None
    return problem(
        status=error.status,
        code=error.code,
        title=error.message,
        hint=error.advice,
        headers=headers,
        verdict=verdict if isinstance(verdict, Verdict) else None,
        faults=tuple(map(str, faults)) if isinstance(faults, tuple) else None,
    )
