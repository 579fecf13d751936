"""One tenant's prefix cache is nobody else's."""

import hashlib
import hmac
from functools import lru_cache

_DOMAIN = b"tenon/cache-salt/v1"


@lru_cache(maxsize=4096)
def cache_salt(secret: bytes, tenant: str, policy: str, epoch: int) -> str:
    """Keeps one tenant's prefix-cache hits from being timed by another (CVE-2025-46570).

    NUL separates the parts: none of them can contain it.
    """
    message = b"\0".join((_DOMAIN, tenant.encode(), policy.encode(), str(epoch).encode()))
    return hmac.new(secret, message, hashlib.sha256).hexdigest()
