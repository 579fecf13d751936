"""Who may do what: the one place where the control API decides it.

Every endpoint declares a :class:`Requirement` by one of the functions below; ``server.api.guarded`` asks it
before anything else of the request is looked at, and refuses to build an endpoint without one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Depends, Request

from registry.errors import TenantNotFound
from server.api.caller import Caller, Who
from server.api.control import Control
from server.errors import RoleNotPermitted

CALLER: Final = "tenon.caller"
"""Where the guard leaves the caller in the ASGI scope."""
PEOPLE: Final = frozenset({Who.PLATFORM_ADMIN, Who.TENANT_ADMIN})
TRAINERS: Final = PEOPLE | {Who.TRAINER}


@dataclass(frozen=True, eq=False)
class Requirement:
    """A dependency that gives the endpoint its caller."""

    control: Control
    who: frozenset[Who]
    """Empty: everybody, without a credential (and then there is no caller)."""
    tenant: bool
    """Whether the path names a tenant: then a tenant's caller must be of it."""

    async def __call__(self, request: Request) -> Caller | None:
        """None only where nobody needs to be known."""
        caller: Caller | None = request.scope[CALLER] if self.who else None
        return caller

    def check(self, caller: Caller, tenant: str | None) -> None:
        """Raises RoleNotPermitted; TenantNotFound for a tenant that is not the caller's, or not at all.

        A caller of another tenant is refused before anything is looked up, so that neither the answer nor
        the time it takes tells whether the tenant exists.
        """
        if tenant is not None and caller.tenant not in (None, tenant):
            raise TenantNotFound(f"there is no tenant {tenant[:80]!r}")
        if caller.who not in self.who:
            raise RoleNotPermitted(f"the role {caller.who} may not do this")
        if tenant is not None and caller.tenant is None:
            self.control.catalog.tenant(tenant)


def requires(control: Control, who: Iterable[Who]) -> Any:
    """An endpoint of the platform: ``caller: Annotated[Caller, requires(control, {Who.SERVICE})]``."""
    return Depends(Requirement(control, _some(who), tenant=False))


def requires_of_tenant(control: Control, who: Iterable[Who]) -> Any:
    """An endpoint below ``/tenants/{tenant}``, for these roles of that tenant."""
    return Depends(Requirement(control, _some(who), tenant=True))


def public(control: Control) -> Any:
    """An endpoint that tells nothing about anybody: as ``dependencies=[public(control)]``."""
    return Depends(Requirement(control, frozenset(), tenant=False))


def _some(who: Iterable[Who]) -> frozenset[Who]:
    roles = frozenset(who)
    if not roles:
        raise TypeError("name the roles, or say public()")
    return roles
