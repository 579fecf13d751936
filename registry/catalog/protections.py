"""Say what an alias needs besides a verdict."""

from registry.catalog import tenants
from registry.catalog.change import Change
from registry.catalog.errors import ProtectionWeakened
from registry.catalog.projection import ALIAS_PROTECTED
from registry.promotions import Protection


def protect(change: Change, protection: Protection) -> None:
    """Setting what is set already changes nothing. Raises TenantNotFound, ProtectionWeakened."""
    tenants.require(change.rows, protection.tenant)
    known = change.rows.protections.get(protection.tenant, protection.alias)
    if known == protection:
        return
    if weakens(known, protection) and _of_tenant(change):
        # Else whoever must ask a second person would first decide that nobody needs to be asked.
        raise ProtectionWeakened(f"a key of the tenant cannot take protection from {protection.alias}")
    subject = f"{protection.tenant}:{protection.alias}"
    change.write(ALIAS_PROTECTED, subject, {"protection": protection.model_dump(mode="json")})


def weakens(known: Protection, wanted: Protection) -> bool:
    return wanted.approvals < known.approvals or (known.release_signature and not wanted.release_signature)


def _of_tenant(change: Change) -> bool:
    if not change.actor.startswith("key:"):
        return False
    key = change.rows.keys.get(change.actor.removeprefix("key:"))
    return key is None or key.tenant is not None
