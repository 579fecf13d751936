"""Keys, from afar. A secret is in the answer that issues it and in no other."""

from typing import Any

from registry.catalog.remote.pages import listed
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import member, path, read
from registry.errors import KeyNotFound
from registry.models import Key, Quota, Role


class Keys(Part):
    def issue_key(
        self, tenant: str | None, *, role: Role, label: str = "", expires_at: str | None = None, actor: str
    ) -> tuple[Key, str]:
        """(the key, its secret). ``tenant`` None: a platform admin's. Raises TenantNotFound."""
        body = {"role": role.value, "label": label, "expires_at": expires_at}
        return self._issued(self._wire.post(self._keys(tenant), body))

    def rotate_key(
        self, key_id: str, *, overlap_seconds: float, actor: str, tenant: str | None = None
    ) -> tuple[Key, str]:
        """A new key of the same role; the old one ends after the overlap. Raises KeyNotFound."""
        at = self._keys(self._key_home(key_id, tenant), key_id, "rotate")
        return self._issued(self._wire.post(at, {"overlap_seconds": overlap_seconds}))

    def limit_key(self, key_id: str, quota: Quota | None, *, actor: str, tenant: str | None = None) -> None:
        """What the key may use within its tenant's quota. Raises KeyNotFound, KeyEnded, KeyInvalid."""
        home = self._key_home(key_id, tenant)
        if home is None:  # the platform's keys ask for nothing, and have no limits
            raise KeyNotFound(f"there is no key {key_id[:80]!r} of a tenant")
        body = {"quota": (quota or Quota()).model_dump(mode="json")}
        self._wire.call("PATCH", self._keys(home, key_id), json=body)

    def revoke_key(self, key_id: str, *, actor: str, tenant: str | None = None) -> None:
        """Raises KeyNotFound."""
        self._wire.call("DELETE", self._keys(self._key_home(key_id, tenant), key_id))

    def key(self, key_id: str, *, tenant: str | None = None) -> Key:
        """Raises KeyNotFound."""
        for key in self.keys(self._key_home(key_id, tenant)):
            if key.id == key_id:
                return key
        raise KeyNotFound(f"there is no key {key_id[:80]!r}")

    def keys(
        self, tenant: str | None, *, after: str | None = None, limit: int | None = None
    ) -> tuple[Key, ...]:
        """By id; None: those of platform admins. Raises TenantNotFound."""
        found = listed(self._wire, self._keys(tenant), Key, after=after, limit=limit)
        self._homes.keys.update({key.id: tenant for key in found})
        return found

    def _issued(self, answer: Any) -> tuple[Key, str]:
        key, secret = read(Key, member(answer, "key")), read(str, member(answer, "secret"))
        self._homes.keys[key.id] = key.tenant
        return key, secret

    def _key_home(self, key_id: str, tenant: str | None) -> str | None:
        if tenant is None and key_id in self._homes.keys:
            return self._homes.keys[key_id]
        return tenant or self.whoami().tenant

    @staticmethod
    def _keys(tenant: str | None, *more: str) -> str:
        return path(*(() if tenant is None else ("tenants", tenant)), "keys", *more)
