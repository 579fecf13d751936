"""Tokens of an identity provider (OpenID Connect) as an alternative to keys, on the control plane."""

from dataclasses import dataclass

from registry.clock import Clock
from registry.identity.tokens import LEEWAY, Claimed, Issuer
from server.api.jwks import KeySet

__all__ = ["LEEWAY", "Claimed", "Oidc"]


@dataclass(frozen=True, slots=True)
class Oidc:
    issuer: str
    audience: str
    keys: KeySet
    clock: Clock
    role_claim: str = "tenon_role"
    tenant_claim: str = "tenon_tenant"

    def verify(self, token: str) -> Claimed:
        """Raises KeyRefused for whatever is wrong, and IdentityProviderUnreachable."""
        issuer = Issuer(self.issuer, self.audience, self.role_claim, self.tenant_claim)
        return issuer.verify(token, self.keys.find, self.clock.now().timestamp())
