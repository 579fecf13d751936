"""Revoke a version, and take it out of whatever shows it."""

from registry.catalog import aliases, versions
from registry.catalog.change import Change
from registry.catalog.projection import VERSION_REVOKED
from registry.catalog.tenants import check_reason


def revoke(change: Change, version: str, *, reason: str) -> None:
    """Revoking twice changes nothing (the first reason stays). Raises VersionNotFound."""
    check_reason(reason)
    found = versions.find(change.rows, version)
    if not found.revoked:
        change.write(VERSION_REVOKED, version, {"reason": reason})
        aliases.take_out(change, found)
