"""What one source of discovery knows at a moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Address":
        """Of an engine's URL; one without a host (a unix socket) is an address as a whole."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # as "http://[::1" and port 99999
            return cls(url, 0)
        if host is None:
            return cls(url, 0)
        return cls(host, _PORTS.get(parts.scheme, 0) if port is None else port)


@dataclass(frozen=True, slots=True)
class Listed:
    """One engine, as far as the source says anything of it."""

    base: str | None = None
    """The name of its base."""
    tenant: str | None = None
    """Whom it is meant for."""
    addresses: frozenset[Address] | None = None
    """Where it may be reached; None: anywhere."""
    ending: bool = False


@dataclass(frozen=True, slots=True)
class Sighting:
    engines: Mapping[str, Listed] = field(default_factory=lambda: MappingProxyType({}))
    heard: float | None = None
    """Monotonic seconds of the source's last word; None before the first, when ``engines`` says nothing."""
