"""The identity provider whose tokens are taken beside keys, from settings: the same on both planes."""

from registry.clock import Clock
from registry.identity.tokens import Issuer
from router.tokens import Tokens
from server.api.jwks import Fetch, KeySet, fetch_file, fetch_url
from server.api.oidc import Oidc
from server.errors import SettingsInvalid
from server.settings import ControlSettings, IdentitySettings, RouterSettings


def open_oidc(settings: ControlSettings, clock: Clock) -> Oidc | None:
    """None: keys only. Raises SettingsInvalid for half of what it takes: a guess would let strangers in."""
    found = _provider(settings)
    if found is None:
        return None
    issuer, fetch = found
    return Oidc(
        issuer=issuer.issuer,
        audience=issuer.audience,
        keys=KeySet(fetch),
        clock=clock,
        role_claim=issuer.role_claim,
        tenant_claim=issuer.tenant_claim,
    )


def open_tokens(settings: RouterSettings) -> Tokens | None:
    """The same for a router, which asks the provider in the background."""
    found = _provider(settings)
    return Tokens(*found) if found is not None else None


def _provider(settings: IdentitySettings) -> tuple[Issuer, Fetch] | None:
    where = (settings.oidc_jwks_url, settings.oidc_jwks_file)
    if settings.oidc_issuer is None and settings.oidc_audience is None and where == (None, None):
        return None
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        raise SettingsInvalid("an identity provider needs TENON_OIDC_ISSUER and TENON_OIDC_AUDIENCE")
    if settings.oidc_role_claim == settings.oidc_tenant_claim:
        raise SettingsInvalid("TENON_OIDC_ROLE_CLAIM and TENON_OIDC_TENANT_CLAIM are one claim")
    if settings.oidc_jwks_url is not None and settings.oidc_jwks_file is None:
        fetch = fetch_url(settings.oidc_jwks_url)
    elif settings.oidc_jwks_file is not None and settings.oidc_jwks_url is None:
        fetch = fetch_file(settings.oidc_jwks_file)
    else:
        raise SettingsInvalid("give either TENON_OIDC_JWKS_URL or TENON_OIDC_JWKS_FILE")
    issuer = Issuer(
        settings.oidc_issuer,
        settings.oidc_audience,
        settings.oidc_role_claim,
        settings.oidc_tenant_claim,
    )
    return issuer, fetch
