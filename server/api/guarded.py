"""The way of a request to its endpoint: who, may they, what exactly is asked, then the endpoint."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from registry.errors import InvalidInput
from server.api import bodies, idempotency
from server.api.access import CALLER, Requirement
from server.api.bodies import Streamed, Taken
from server.api.caller import Caller, identify


class Guarded(APIRoute):
    """An endpoint of the control API; one that declares no requirement cannot be built."""

    @property
    def requirement(self) -> Requirement:
        found = [each for each in declared(self.dependant) if isinstance(each, Requirement)]
        if len(found) != 1 or found[0].tenant != ("{tenant}" in self.path):
            raise TypeError(f"{self.path} must say once who may use it, and of which tenant")
        return found[0]

    @property
    def taken(self) -> Taken[Any] | Streamed | None:
        """The request body; None for an endpoint that takes none."""
        found = [each for each in declared(self.dependant) if isinstance(each, Taken | Streamed)]
        return found[0] if found else None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        requirement, taken = self.requirement, self.taken
        known = {field.alias for each in dependants(self.dependant) for field in each.query_params}

        def admit(request: Request) -> Caller:
            caller = identify(requirement.control, request.headers)
            requirement.check(caller, request.path_params.get("tenant"))
            return caller

        async def guarded(request: Request) -> Response:
            if requirement.who:
                request.scope[CALLER] = await run_in_threadpool(admit, request)
            _check_query(request, known)
            if isinstance(taken, Streamed) or not requirement.who:
                return await answer(request)
            body = await bodies.receive(request, taken)
            return await idempotency.once(
                request, body, control=requirement.control, caller=request.scope[CALLER], answer=answer
            )

        return guarded


def router() -> APIRouter:
    """What every noun's ``routes(control)`` starts from."""
    return APIRouter(route_class=Guarded, generate_unique_id_function=lambda route: route.name)


def dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from dependants(inner)


def declared(dependant: Dependant) -> Iterator[object]:
    """The callables an endpoint depends on."""
    return (each.call for each in dependants(dependant) if each.call is not None)


def _check_query(request: Request, known: set[str]) -> None:
    """A misspelt ``dry_run`` must not become a real change."""
    given = [name for name, _ in request.query_params.multi_items()]
    if strange := sorted(set(given) - known):
        raise InvalidInput(f"unknown query parameter {strange[0][:80]!r}")
    if len(given) != len(set(given)):
        raise InvalidInput("a query parameter is given twice")
