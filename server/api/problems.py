"""Errors as problem+json (RFC 9457): the only renderer of the control API."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from registry.errors import TenonError

MEDIA_TYPE = "application/problem+json"


def problem(*, status: int, code: str, title: str, hint: str = "") -> JSONResponse:
    body = {"type": f"urn:tenon:error:{code}", "title": title, "status": status, "code": code}
    return JSONResponse(body | ({"hint": hint} if hint else {}), status_code=status, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Every way a request can fail ends in one of these; stack traces never leave the process."""

    @app.exception_handler(TenonError)
    async def deliberate(_: Request, error: TenonError) -> JSONResponse:
        return problem(status=error.status, code=error.code, title=error.message, hint=error.advice)

    @app.exception_handler(RequestValidationError)
    async def unparseable(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors())
        return problem(status=400, code="invalid_input", title=faults)

    @app.exception_handler(HTTPException)
    async def framework(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return problem(status=error.status_code, code=code, title=str(error.detail))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        return problem(status=500, code="internal", title="something went wrong in the control plane")
