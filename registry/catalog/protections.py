"""Say what an alias needs besides a verdict."""

from registry.catalog import tenants
from registry.catalog.change import Change
from registry.catalog.errors import ProtectionWeakened
from registry.catalog.projection import ALIAS_PROTECTED
from registry.promotions import Protection, strongest, weaker
from registry.store.transaction import Transaction


def protect(change: Change, protection: Protection) -> None:
    """Setting what is set already changes nothing. Raises TenantNotFound, ProtectionWeakened."""
    tenants.require(change.rows, protection.tenant)
    known = change.rows.protections.get(protection.tenant, protection.alias)
    if known == protection:
        return
    if weaker(protection, known) and _of_tenant(change):
        # Else whoever must ask a second person would first decide that nobody needs to be asked.
        raise ProtectionWeakened(f"a key of the tenant cannot take protection from {protection.alias}")
    subject = f"{protection.tenant}:{protection.alias}"
    change.write(ALIAS_PROTECTED, subject, {"protection": protection.model_dump(mode="json")})


def needed(rows: Transaction, tenant: str, alias: str) -> Protection:
    """What a move of ``alias`` needs now. Whether a rule leads to it decides, and not what it is called: or a
    new alias with a rule to it would be the way around."""
    if any(route.alias == alias for route in rows.routings.get(tenant).routes):
        return strongest(tenant, alias, rows.protections.of(tenant))
    return rows.protections.get(tenant, alias)


def _of_tenant(change: Change) -> bool:
    if not change.actor.startswith("key:"):
        return False
    key = change.rows.keys.get(change.actor.removeprefix("key:"))
    return key is None or key.tenant is not None
