"""A token becomes what it says about its bearer, or one and the same error."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from registry.errors import KeyRefused
from registry.identity.keysets import ProviderKey
from registry.models import Role

LEEWAY: Final = 30
"""Seconds that two clocks may differ."""
_MAX_TOKEN: Final = 8192
_MAX_SUBJECT: Final = 255  # OpenID Connect Core 1.0, section 2: sub
_REQUIRED: Final = ("iss", "aud", "sub", "exp", "iat")


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a valid token says about its bearer; whether the tenant exists is for others to say."""

    actor: str
    role: Role
    tenant: str | None
    until: float
    """Seconds since the epoch from which on the token is no longer taken."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens are taken, and how they name role and tenant."""

    issuer: str
    audience: str
    role_claim: str = "tenon_role"
    tenant_claim: str = "tenon_tenant"

    def verify(self, token: str, find: Callable[[str], ProviderKey | None], now: float) -> Claimed:
        """``find``: the provider's key by its id. ``now``: seconds since the epoch.

        Raises KeyRefused for whatever is wrong with the token, and what ``find`` raises.
        """
        if len(token) > _MAX_TOKEN:
            raise _refused()
        try:
            header = jwt.get_unverified_header(token)
            kid, algorithm = header.get("kid"), header.get("alg")
            found = find(kid) if isinstance(kid, str) else None
            # The key says which algorithm: a token must not (RFC 8725, 3.1).
            if found is None or algorithm != found.algorithm:
                raise _refused()
            claims = jwt.decode(
                token,
                found.key,
                algorithms=[found.algorithm],
                audience=self.audience,
                issuer=self.issuer,
                # Times are compared below, with the clock that was given.
                options={
                    "require": list(_REQUIRED),
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise _refused() from None
        until = _check_times(claims, now)
        return Claimed(self._actor(claims), *self._place(claims), until)

    def _actor(self, claims: dict[str, Any]) -> str:
        subject = claims["sub"]
        if not (isinstance(subject, str) and 0 < len(subject) <= _MAX_SUBJECT):
            raise _refused()
        if not all("!" <= letter <= "~" for letter in subject):  # it becomes a line of the log
            raise _refused()
        return f"oidc:{urlsplit(self.issuer).netloc}/{subject}"

    def _place(self, claims: dict[str, Any]) -> tuple[Role, str | None]:
        """A platform admin belongs to no tenant, everybody else to exactly one."""
        said, tenant = claims.get(self.role_claim), claims.get(self.tenant_claim)
        roles = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        known = {role for role in Role if role.value in roles}
        if len(known) != 1:
            raise _refused()
        (role,) = known
        if role is Role.PLATFORM_ADMIN and tenant is None:
            return role, None
        if role is not Role.PLATFORM_ADMIN and isinstance(tenant, str) and tenant:
            return role, tenant
        raise _refused()


def _check_times(claims: dict[str, Any], now: float) -> float:
    """When the token ends."""
    until, since, made = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
    if until is None or until + LEEWAY <= now:
        raise _refused()
    if any(moment is not None and moment - LEEWAY > now for moment in (since, made)):
        raise _refused()
    return until + LEEWAY


def _moment(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, 2), or None when absent."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise _refused()
    return float(value)


def _refused() -> KeyRefused:
    return KeyRefused("the credential was not accepted")
