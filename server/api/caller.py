"""Who is calling: a credential becomes a Caller, or one and the same error."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from registry.digests import Digest
from registry.errors import KeyRefused, TenantNotFound
from registry.keys import PREFIX
from registry.models import Role
from server.api.control import Control


class Who(StrEnum):
    """The roles of keys, and the one that no key has: Tenon's own processes."""

    SERVICE = "service"
    PLATFORM_ADMIN = Role.PLATFORM_ADMIN.value
    TENANT_ADMIN = Role.TENANT_ADMIN.value
    TRAINER = Role.TRAINER.value
    INFERENCE = Role.INFERENCE.value


@dataclass(frozen=True, slots=True)
class Caller:
    actor: str
    """As it stands in the log: ``service``, ``key:<id>`` or ``oidc:<issuer's host>/<subject>``."""
    who: Who
    tenant: str | None
    """None for the service and platform admins, and for nobody else."""


SERVICE: Final = Caller(actor="service", who=Who.SERVICE, tenant=None)


def identify(control: Control, headers: Mapping[str, str]) -> Caller:
    """The caller, from ``Authorization: Bearer …``. Raises KeyRefused, the same for whatever is wrong.

    Nothing is remembered between two requests, so that a revoked key is refused on the next one.
    """
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    secret = secret.strip(" ")
    if scheme.lower() != "bearer" or not secret:
        raise refused()
    # Digests: compare_digest takes as long as its arguments are, and would tell the token's length.
    if hmac.compare_digest(_digest(secret), _digest(control.service_token)):
        return SERVICE
    if secret.startswith(f"{PREFIX}_"):
        try:
            key = control.catalog.authenticate(secret)
        except KeyRefused:  # in the same words as every other credential that is none
            raise refused() from None
        return Caller(actor=f"key:{key.id}", who=Who(key.role), tenant=key.tenant)
    if control.oidc is not None:
        claimed = control.oidc.verify(secret)
        if claimed.tenant is not None and not _is_served(control, claimed.tenant):
            raise refused()
        return Caller(actor=claimed.actor, who=Who(claimed.role), tenant=claimed.tenant)
    raise refused()


def _is_served(control: Control, tenant: str) -> bool:
    try:
        return not control.catalog.tenant(tenant).suspended
    except TenantNotFound:
        return False


def refused() -> KeyRefused:
    return KeyRefused("the credential was not accepted")


def _digest(secret: str) -> str:
    return Digest.of(secret.encode("utf-8", "surrogateescape"))
