"""Issue, rotate and revoke API keys, and see whom a secret belongs to."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from registry import keys
from registry.catalog import tenants
from registry.catalog.change import Change
from registry.catalog.errors import ExpiryInvalid, KeyEnded, KeyInvalid
from registry.catalog.projection import KEY_CHANGED, KEY_ISSUED, KEY_REVOKED
from registry.clock import restamp, stamp
from registry.digests import Digest
from registry.errors import AlreadyExists, KeyNotFound, KeyRefused
from registry.models import Key, Quota, Role
from registry.store.transaction import Transaction

MAX_OVERLAP = 30 * 24 * 3600
"""Seconds. Longer, and two keys live where people believe there is one."""
_NOBODY: Final = Key(
    id="0" * 16, tenant=None, role=Role.PLATFORM_ADMIN, secret_hash=Digest("sha256:" + "0" * 64), revoked=True
)
"""Compared with when there is no such key, so that there being none takes no less time."""


def issue(
    change: Change,
    tenant: str | None,
    *,
    role: Role,
    label: str = "",
    expires_at: str | None = None,
    entropy: Callable[[int], bytes],
) -> tuple[Key, str]:
    """(the key as stored, the secret). The secret is nowhere else: not in the table, not in the log."""
    if (tenant is None) != (role is Role.PLATFORM_ADMIN):
        raise KeyInvalid("a platform admin's key belongs to no tenant, and every other key to one")
    if tenant is not None:
        tenants.require(change.rows, tenant)
    return _issued(
        change,
        entropy,
        {"tenant": tenant, "role": str(role), "label": label, "expires_at": future(change, expires_at)},
    )


def rotate(
    change: Change, key_id: str, *, overlap_seconds: float, entropy: Callable[[int], bytes]
) -> tuple[Key, str]:
    """A key with the same rights; the old one opens for ``overlap_seconds`` more.

    It ends when the old one would have ended: nobody prolongs a key by rotating it. Raises KeyNotFound,
    KeyEnded, KeyInvalid.
    """
    old = get(change.rows, key_id)
    if old.revoked or ended(old, change.now):
        raise KeyEnded(f"the key {key_id} was revoked or has expired")
    if not 0 <= overlap_seconds <= MAX_OVERLAP:
        raise KeyInvalid(f"the overlap must be 0 to {MAX_OVERLAP} seconds")
    ends = stamp(datetime.fromisoformat(change.now) + timedelta(seconds=overlap_seconds))
    kept = old.model_dump(mode="json", include={"tenant", "role", "label", "expires_at", "quota"})
    new = _issued(change, entropy, kept | {"root": old.line})
    changed = old.model_copy(update={"expires_at": min(ends, old.expires_at or ends)})
    change.write(KEY_CHANGED, old.id, {"key": changed.model_dump(mode="json")})
    return new


def revoke(change: Change, key_id: str) -> None:
    """Revoking twice changes nothing. Raises KeyNotFound."""
    key = get(change.rows, key_id)
    if not key.revoked:
        revoked = key.model_copy(update={"revoked": True})
        change.write(KEY_REVOKED, key.id, {"key": revoked.model_dump(mode="json")})


def limit(change: Change, key_id: str, quota: Quota | None) -> None:
    """Raises KeyNotFound, KeyEnded, KeyInvalid."""
    key = get(change.rows, key_id)
    if key.revoked or ended(key, change.now):
        raise KeyEnded(f"the key {key_id} was revoked or has expired")
    if key.tenant is None:
        raise KeyInvalid("a key of the platform asks for no completions: there is nothing to limit")
    if quota is not None and quota.weight is not None:
        raise KeyInvalid("a weight is its tenant's: keys of one tenant share one place in the queue")
    if quota == Quota():
        quota = None
    if quota != key.quota:
        changed = key.model_copy(update={"quota": quota})
        change.write(KEY_CHANGED, key.id, {"key": changed.model_dump(mode="json")})


def authenticate(rows: Transaction, secret: str, *, now: str) -> Key:
    """Raises KeyRefused, whatever is wrong. Every well-formed secret takes the same steps."""
    key_id = keys.key_id(secret)
    if key_id is None:
        raise KeyRefused("this is no valid key")
    key = rows.keys.get(key_id) or _NOBODY
    tenant = rows.tenants.get(key.tenant or "")
    served = key.tenant is None if key.role is Role.PLATFORM_ADMIN else tenant and not tenant.suspended
    if not (keys.opens(secret, key) and served) or ended(key, now):
        raise KeyRefused("this is no valid key")
    return key


def get(rows: Transaction, key_id: str) -> Key:
    key = rows.keys.get(key_id)
    if key is None:
        raise KeyNotFound(f"there is no key {key_id[:80]!r}")
    return key


def ended(key: Key, now: str) -> bool:
    return key.expires_at is not None and key.expires_at <= now


def future(change: Change, expires_at: str | None) -> str | None:
    """In the catalog's spelling. Raises InvalidInput, ExpiryInvalid."""
    if expires_at is None:
        return None
    stamped = restamp(expires_at, "expires_at")
    if stamped <= change.now:
        raise ExpiryInvalid(f"it is {change.now}, and {stamped} has passed", now=change.now)
    return stamped


def _issued(change: Change, entropy: Callable[[int], bytes], fields: dict[str, Any]) -> tuple[Key, str]:
    key_id, secret = keys.mint(entropy)
    if change.rows.keys.get(key_id):  # one in 2**64, or an entropy source that repeats itself
        raise AlreadyExists("the new key's id is already taken: try again")
    hashed = str(Digest.of(secret.encode("ascii")))
    key = Key.build(fields | {"id": key_id, "secret_hash": hashed})
    change.write(KEY_ISSUED, key.id, {"key": key.model_dump(mode="json")})
    return key, secret
