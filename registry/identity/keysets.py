"""The public keys of an identity provider (RFC 7517), of which only some may verify our tokens."""

from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from registry.canonical import decode
from registry.errors import InvalidDocument

FRESH: Final = 300.0
"""Seconds after which the keys are asked for again, so that a key withdrawn by the provider ends here too."""
STALE: Final = 3600.0
"""Seconds that known keys are still believed while the provider does not answer."""
BETWEEN: Final = 30.0
"""Seconds at least between two questions: tokens with made-up key ids must not become load elsewhere."""
_LEAST_RSA_BITS: Final = 2048  # RFC 7518, 3.3
_ALGORITHMS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}


@dataclass(frozen=True, slots=True)
class ProviderKey:
    key: Any
    algorithm: str
    """The only one it may be used with, whatever a token says."""


def parse(data: bytes) -> dict[str, ProviderKey]:
    """Key id -> key, of those that may verify our tokens. Raises InvalidDocument when it is no key set."""
    document = decode(data)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise InvalidDocument("not a JSON web key set")
    keys: dict[str, ProviderKey] = {}
    for item in listed:
        if not isinstance(item, dict) or (found := _usable(item)) is None:
            continue
        if item["kid"] in keys:
            raise InvalidDocument("two keys have one id")
        keys[item["kid"]] = found
    return keys


def _usable(item: dict[str, Any]) -> ProviderKey | None:
    """None for what must not verify: symmetric keys, other curves, encryption keys, short RSA keys."""
    kind, curve = item.get("kty"), item.get("crv")
    algorithm = _ALGORITHMS.get((kind, curve)) if isinstance(kind, str) else None
    if algorithm is None or not isinstance(item.get("kid"), str):
        return None
    if item.get("use", "sig") != "sig" or item.get("alg", algorithm) != algorithm:
        return None
    public = {name: value for name, value in item.items() if name in {"kty", "crv", "n", "e", "x", "y"}}
    try:
        key = jwt.PyJWK(public, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        return None
    return ProviderKey(key, algorithm)
