"""authenticate: a bearer token becomes a Principal, or a refusal that tells nothing about other tenants."""

from registry.digests import Digest
from registry.keys import key_id
from registry.models import Role
from router.errors import DuplicateHeader, InvalidApiKey, MissingApiKey, RoleForbidden, TenantMismatch
from router.headers import Headers
from router.tables import Principal, Tables

_MAY_ASK = frozenset({Role.INFERENCE, Role.TENANT_ADMIN, Role.PLATFORM_ADMIN})


def authenticate(headers: Headers, tables: Tables) -> Principal:
    """Who is calling.

    Raises MissingApiKey, InvalidApiKey, DuplicateHeader, TenantMismatch.
    """
    sent = headers.every("authorization")
    if not sent:
        raise MissingApiKey
    scheme, _, token = sent[0].partition(" ")
    if len(sent) != 1 or scheme.lower() != "bearer":
        raise InvalidApiKey
    secret = token.strip(" ")
    key = key_id(secret)
    if key is None:
        raise InvalidApiKey
    # A table keyed by the hash of 256 random bits: looking it up reveals nothing by its timing.
    principal = tables.principals.get(Digest.of(secret.encode("ascii")))
    if principal is None or principal.key != key:
        raise InvalidApiKey
    claimed = headers.every("x-tenant-id")
    if len(claimed) > 1:
        raise DuplicateHeader("the header X-Tenant-ID was sent more than once", param="X-Tenant-ID")
    if claimed and claimed[0] != principal.tenant:
        raise TenantMismatch
    return principal


def may_ask(principal: Principal) -> None:
    """Raises RoleForbidden: a trainer's key publishes adapters and asks nothing."""
    if principal.role not in _MAY_ASK:
        raise RoleForbidden
