"""Fingerprints of the other versions of an adapter: what a new one is to be told from."""

from typing import Final

from registry.digests import Digest
from registry.errors import TenonError
from registry.fingerprint import Fingerprint
from registry.names import AdapterName
from server.assembly.place import Catalog

_LAST: Final = 3
"""Newest first: the live one, its predecessor and a canary are what an engine holds beside it."""


def of(catalog: Catalog, name: AdapterName, *, beside: Digest | None = None) -> dict[Digest, Fingerprint]:
    """Of versions that are not revoked, without ``beside``. One that cannot be read now is left out: it only
    helps to choose probes, and engines compare again."""
    found: dict[Digest, Fingerprint] = {}
    known = [each for each in catalog.versions(name) if each.state != "revoked" and each.version != beside]
    for each in reversed(known[-_LAST:]):
        try:
            fingerprint = catalog.fingerprint(each.version)
        except TenonError:
            continue
        if fingerprint is not None:
            found[each.version] = fingerprint
    return found


def known(catalog: Catalog, name: AdapterName) -> dict[Digest, Fingerprint]:
    """:func:`of`, for a training that is hours old and must not end because a registry is away; nothing then,
    and engines compare again."""
    try:
        return of(catalog, name)
    except TenonError:
        return {}
