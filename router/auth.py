"""authenticate: a bearer token becomes a Principal, or a refusal that tells nothing about other tenants.

What a key stands for is worked out once per state of the registry; after that a request costs one look.
"""

from datetime import datetime
from typing import NamedTuple

from registry.clock import passed
from registry.digests import Digest
from registry.keys import SECRET_LENGTH, key_id
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
from router.tokens import Tokens

_MAY_ASK = frozenset({Role.INFERENCE, Role.TENANT_ADMIN, Role.PLATFORM_ADMIN})
MOST_CALLERS = 10_000
"""Keys that are remembered for one state of the tables, about 3 MB; they go with it."""
_HEADER_LENGTH = len("Bearer ") + SECRET_LENGTH


class Caller(NamedTuple):
    """A key that opens something now."""

    principal: Principal
    until: datetime | None
    suspended: bool


def authenticate(headers: Headers, tables: Tables, now: datetime, tokens: Tokens | None = None) -> Principal:
    """Who is calling; by keys only without ``tokens``.

    Raises MissingApiKey, InvalidApiKey, RoleForbidden (a key of no tenant), DuplicateHeader, TenantMismatch,
    TenantSuspended, RouterNotReady (a token while the identity provider is not known).
    """
    sent = headers.every("authorization")
    # Looking up a secret by itself tells nothing by its timing: the dictionary hashes it with a secret seed.
    caller = tables.callers.get(sent[0]) if len(sent) == 1 else None
    if caller is None or (caller.until is not None and caller.until <= now):
        caller = _shown(sent, tables, now, tokens)
    principal = caller.principal
    claimed = headers.every("x-tenant-id")
    if claimed:
        if len(claimed) > 1:
            raise DuplicateHeader("the header X-Tenant-ID was sent more than once", param="X-Tenant-ID")
        if claimed[0] != principal.tenant:
            raise TenantMismatch
    if caller.suspended:  # said only to who has shown a key of it
        raise TenantSuspended
    return principal


def may_ask(principal: Principal) -> None:
    """Raises RoleForbidden: a trainer's key publishes adapters and asks nothing."""
    if principal.role not in _MAY_ASK:
        raise RoleForbidden


def _shown(sent: list[str], tables: Tables, now: datetime, tokens: Tokens | None) -> Caller:
    if not sent:
        raise MissingApiKey
    scheme, _, token = sent[0].partition(" ")
    if len(sent) != 1 or scheme.lower() != "bearer":
        raise InvalidApiKey
    secret = token.strip(" ")
    named = key_id(secret)
    if named is not None:
        return _of_key(sent[0], secret, named, tables, now)
    if tokens is None or secret.count(".") != 2:  # a signed token has three parts (RFC 7515, 7.1)
        raise InvalidApiKey
    # Remembered by ``tokens``, across states of the registry: its signature costs more than all the rest.
    principal, _ = tokens.find(secret, now.timestamp())
    return _caller(principal, None, tables)


def _of_key(header: str, secret: str, named: str, tables: Tables, now: datetime) -> Caller:
    # A table keyed by the hash of 256 random bits: looking it up reveals nothing by its timing.
    key = tables.key(Digest.of(secret.encode("ascii")))
    if key is None or key.id != named or key.revoked or passed(key.expires_at, now):
        raise InvalidApiKey
    principal = None if key.tenant is None else Principal(key.tenant, key.id, key.role, key.line)
    caller = _caller(principal, key.expires_at, tables)
    # Any number of spaces may come before a secret (RFC 9110, 11.4): what is padded is looked up each time,
    # or whoever has a key decides how much is kept.
    if len(header) == _HEADER_LENGTH:
        if len(tables.callers) >= MOST_CALLERS:
            tables.callers.clear()
        tables.callers[header] = caller
    return caller


def _caller(principal: Principal | None, expires_at: str | None, tables: Tables) -> Caller:
    if principal is None:
        raise RoleForbidden
    tenant = tables.state.tenants.get(principal.tenant)
    if tenant is None:
        raise InvalidApiKey
    until = datetime.fromisoformat(expires_at) if expires_at is not None else None
    return Caller(principal, until, tenant.suspended)
