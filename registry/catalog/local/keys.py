"""Keys that open the API."""

from registry.catalog import keys, tenants
from registry.catalog.local.part import Part
from registry.models import Key, Quota, Role


class Keys(Part):
    def issue_key(
        self,
        tenant: str | None,
        *,
        role: Role,
        label: str = "",
        expires_at: str | None = None,
        actor: str,
    ) -> tuple[Key, str]:
        """(the key, its secret: shown now and never again); ``tenant`` None: a platform admin's.

        Raises TenantNotFound, KeyInvalid, ExpiryInvalid.
        """
        with self._change_by(actor) as change:
            return keys.issue(
                change, tenant, role=role, label=label, expires_at=expires_at, entropy=self._entropy
            )

    def rotate_key(self, key_id: str, *, overlap_seconds: float, actor: str) -> tuple[Key, str]:
        """A key with the same rights; the old one still opens for ``overlap_seconds``.

        Raises KeyNotFound, KeyEnded, KeyInvalid.
        """
        with self._change_by(actor) as change:
            return keys.rotate(change, key_id, overlap_seconds=overlap_seconds, entropy=self._entropy)

    def revoke_key(self, key_id: str, *, actor: str) -> None:
        """Raises KeyNotFound."""
        with self._change_by(actor) as change:
            keys.revoke(change, key_id)

    def limit_key(self, key_id: str, quota: Quota | None, *, actor: str) -> None:
        """What the key may use within its tenant's quota; None: no limits of its own.

        Raises KeyNotFound, KeyEnded, KeyInvalid.
        """
        with self._change_by(actor) as change:
            keys.limit(change, key_id, quota)

    def key(self, key_id: str) -> Key:
        """Raises KeyNotFound."""
        with self._database.read() as rows:
            return keys.get(rows, key_id)

    def keys(
        self, tenant: str | None, *, after: str | None = None, limit: int | None = None
    ) -> tuple[Key, ...]:
        """By id; None: those of platform admins. Raises TenantNotFound."""
        with self._database.read() as rows:
            if tenant is not None:
                tenants.require(rows, tenant)
            return rows.keys.of(tenant, after=after, limit=limit)

    def authenticate(self, secret: str) -> Key:
        """Raises KeyRefused, whatever is wrong with it."""
        with self._database.read() as rows:
            return keys.authenticate(rows, secret, now=self._now(rows))
