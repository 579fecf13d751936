"""Create tenants, suspend them, and say what they may use."""

from registry.catalog.change import Change
from registry.catalog.errors import TenantMoved
from registry.catalog.projection import TENANT_CHANGED, TENANT_CREATED
from registry.digests import Digest
from registry.errors import AlreadyExists, InvalidInput, TenantNotFound
from registry.models import Isolation, Quota, Tenant
from registry.store.transaction import Transaction


def create(change: Change, tenant: Tenant) -> None:
    if change.rows.tenants.has(tenant.id):
        raise AlreadyExists(f"there is already a tenant {tenant.id}")
    if tenant.isolation != Isolation():
        raise InvalidInput("a new tenant shares engines", hint="isolate it afterwards")
    change.write(TENANT_CREATED, tenant.id, {"tenant": tenant.model_dump(mode="json")})


def suspend(change: Change, tenant: str, *, reason: str) -> None:
    """Suspending twice changes nothing (the first reason stays)."""
    check_reason(reason)
    known = get(change.rows, tenant)
    if not known.suspended:
        _put(change, known, reason=reason, suspended=True)


def resume(change: Change, tenant: str) -> None:
    known = get(change.rows, tenant)
    if known.suspended:
        _put(change, known, suspended=False)


def set_quota(change: Change, tenant: str, quota: Quota) -> None:
    known = get(change.rows, tenant)
    if known.quota != quota:
        _put(change, known, quota=quota.model_dump(mode="json"))


def rename(change: Change, tenant: str, display_name: str) -> None:
    known = get(change.rows, tenant)
    if known.display_name != display_name:
        _put(change, known, display_name=display_name)


def check_unchanged(change: Change, tenant: str, expect: Digest | None) -> None:
    """``expect``: identity of the tenant that the caller saw. Raises TenantNotFound, TenantMoved."""
    if expect is not None and get(change.rows, tenant).identity() != expect:
        raise TenantMoved(f"the tenant {tenant} is not what it was")


def get(rows: Transaction, tenant: str) -> Tenant:
    """Raises TenantNotFound."""
    found = rows.tenants.get(tenant)
    if found is None:
        raise TenantNotFound(f"there is no tenant {tenant[:80]!r}")
    return found


def require(rows: Transaction, tenant: str) -> None:
    """Raises TenantNotFound."""
    get(rows, tenant)


def check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > 500:
        raise InvalidInput("give a reason of 1 to 500 characters: it stays in the log")


def _put(change: Change, known: Tenant, *, reason: str | None = None, **fields: object) -> None:
    # Where it lives has entries of its own, which the tenant does not see: they name engines.
    changed = Tenant.build(known.model_dump(mode="json", exclude={"isolation"}) | fields)
    said = {"reason": reason} if reason is not None else {}
    change.write(TENANT_CHANGED, known.id, {"tenant": changed.model_dump(mode="json")} | said)
