"""Issue and revoke API keys."""

from collections.abc import Callable

from registry import keys
from registry.catalog import tenants
from registry.catalog.change import Change
from registry.catalog.projection import KEY_ISSUED, KEY_REVOKED
from registry.digests import Digest
from registry.errors import AlreadyExists, KeyNotFound
from registry.models import Key, Role


def issue(change: Change, tenant: str, *, role: Role, entropy: Callable[[int], bytes]) -> tuple[Key, str]:
    """(the key as stored, the secret). The secret is nowhere else: not in the table, not in the log."""
    tenants.require(change.rows, tenant)
    key_id, secret = keys.mint(entropy)
    if change.rows.keys.get(key_id):  # one in 2**64, or an entropy source that repeats itself
        raise AlreadyExists("the new key's id is already taken: try again")
    key = Key(id=key_id, tenant=tenant, role=role, secret_hash=Digest.of(secret.encode("ascii")))
    change.write(KEY_ISSUED, key.id, {"key": key.model_dump(mode="json")})
    return key, secret


def revoke(change: Change, key_id: str) -> None:
    """Revoking twice changes nothing. Raises KeyNotFound."""
    key = change.rows.keys.get(key_id)
    if key is None:
        raise KeyNotFound(f"there is no key {key_id[:80]!r}")
    if not key.revoked:
        revoked = key.model_copy(update={"revoked": True})
        change.write(KEY_REVOKED, key.id, {"key": revoked.model_dump(mode="json")})
