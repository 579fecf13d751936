"""authenticate: a bearer token becomes a Principal, or a refusal that tells nothing about other tenants."""

from datetime import datetime

from registry.clock import passed
from registry.digests import Digest
from registry.keys import key_id
from registry.models import Role
from router.errors import (
    DuplicateHeader,
    InvalidApiKey,
    MissingApiKey,
    RoleForbidden,
    TenantMismatch,
    TenantSuspended,
)
from router.headers import Headers
from router.tables import Principal, Tables

_MAY_ASK = frozenset({Role.INFERENCE, Role.TENANT_ADMIN, Role.PLATFORM_ADMIN})


def authenticate(headers: Headers, tables: Tables, now: datetime) -> Principal:
    """Who is calling.

    Raises MissingApiKey, InvalidApiKey, RoleForbidden (a key of no tenant), DuplicateHeader, TenantMismatch,
    TenantSuspended.
    """
    sent = headers.every("authorization")
    if not sent:
        raise MissingApiKey
    scheme, _, token = sent[0].partition(" ")
    if len(sent) != 1 or scheme.lower() != "bearer":
        raise InvalidApiKey
    secret = token.strip(" ")
    named = key_id(secret)
    if named is None:
        raise InvalidApiKey
    # A table keyed by the hash of 256 random bits: looking it up reveals nothing by its timing.
    key = tables.key(Digest.of(secret.encode("ascii")))
    if key is None or key.id != named or key.revoked or passed(key.expires_at, now):
        raise InvalidApiKey
    if key.tenant is None:
        raise RoleForbidden
    tenant = tables.state.tenants.get(key.tenant)
    if tenant is None:
        raise InvalidApiKey
    claimed = headers.every("x-tenant-id")
    if len(claimed) > 1:
        raise DuplicateHeader("the header X-Tenant-ID was sent more than once", param="X-Tenant-ID")
    if claimed and claimed[0] != key.tenant:
        raise TenantMismatch
    if tenant.suspended:  # said only to who has shown a key of it
        raise TenantSuspended
    return Principal(key.tenant, key.id, key.role, key.line)


def may_ask(principal: Principal) -> None:
    """Raises RoleForbidden: a trainer's key publishes adapters and asks nothing."""
    if principal.role not in _MAY_ASK:
        raise RoleForbidden
