"""What the nouns of a remote catalog share: the wire, and whose things are."""

from dataclasses import dataclass, field

from registry.catalog.remote.wire import Wire, path, read
from registry.digests import Digest
from registry.errors import InvalidInput
from registry.models import Role
from registry.names import AdapterName


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the registry takes the key for."""

    actor: str
    tenant: str | None
    """None for the platform's own."""
    role: str
    """A :class:`registry.models.Role`, or ``service``."""

    @property
    def platform(self) -> bool:
        return self.role == Role.PLATFORM_ADMIN


@dataclass(slots=True)
class Homes:
    """Versions, keys and proposals are asked for by their tenant; ids alone do not tell it."""

    versions: dict[Digest, AdapterName] = field(default_factory=dict)
    keys: dict[str, str | None] = field(default_factory=dict)
    proposals: dict[str, str] = field(default_factory=dict)


class Part:
    """One noun's calls. :class:`~registry.catalog.remote.catalog.RemoteCatalog` is all of them on one wire.

    ``actor`` is taken for the sake of the local catalog's callers: a registry believes its key, not a word.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._homes = Homes()
        self._identity: Identity | None = None

    def whoami(self) -> Identity:
        """Raises KeyRefused, Unreachable."""
        if self._identity is None:
            self._identity = read(Identity, self._wire.get("/whoami"))
        return self._identity

    def _own_tenant(self, what: str) -> str:
        """The key's own tenant, for ids whose tenant nobody named."""
        tenant = self.whoami().tenant
        if tenant is None:
            raise InvalidInput(f"whose is {what}? a platform key has no tenant of its own")
        return tenant

    @staticmethod
    def _of(tenant: str, *more: str) -> str:
        return path("tenants", tenant, *more)

    @staticmethod
    def _at(name: AdapterName, *more: str) -> str:
        return path("tenants", name.tenant, "adapters", name.adapter, *more)
