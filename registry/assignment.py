"""Who gets a canary: decided by who asks, never by chance per request.

A *unit* is what must not see two versions in turn: the conversation when the client names one, else its
``user``, else its key. It falls into one of 10,000 buckets::

    int(SHA-256("tenon.assignment/v1" 0x00 "tenant/adapter:alias" 0x00 unit)[:8]) mod 10000

(big-endian; 2**64 mod 10000 makes no bucket likelier than another by more than one in 10**15). The first
canary serves the lowest buckets, a second one the highest, the stable version all between: so raising a share
moves nobody out of a canary, and nobody from one canary to the other. The name of the alias is hashed too, so
that the same people are not the first to try everything.
"""

import hashlib

from registry.digests import Digest
from registry.models import AliasState

BUCKETS = 10_000
_DOMAIN = b"tenon.assignment/v1"


def assigned(state: AliasState, unit: str) -> Digest:
    """The version that answers ``unit``. Pure: whether it expired or was revoked is for the caller to see."""
    if not state.canaries:
        return state.version
    at = bucket(state, unit)
    for canary in state.canaries:
        if at >= BUCKETS - canary.buckets if canary.from_top else at < canary.buckets:
            return canary.version
    return state.version


def bucket(state: AliasState, unit: str) -> int:
    name = f"{state.tenant}/{state.adapter}:{state.alias}".encode()
    # A client may send any text that JSON can spell, lone surrogates too.
    data = b"\0".join((_DOMAIN, name, unit.encode("utf-8", "surrogatepass")))
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") % BUCKETS
