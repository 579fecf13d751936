"""Which tables row-level security must guard: all of them, unless they hold nothing of a tenant.

A new table is behind the wall from its first day: without a policy in a migration PostgreSQL refuses to open
(``PostgresDatabase.check``), and a test fails.
"""

from typing import Final

from registry.store.rows import Row

EVERYTHING: Final = "*"
"""Scope of the registry's own work; no tenant can be named so."""

OPEN: Final = {
    "bases": "what tenants train on is the platform's, and the same for all",
    "engines": "the platform's machines; who is loaded on them is in slots",
    "frontier": "hashes only; every change of every tenant extends it",
    "heads": "signed sizes and hashes only",
    "nodes": "hashes only; a proof about one tenant's entry needs those of others",
    "record_heads": "one chain a router, over all tenants' requests: hashes only",
    "signers": "public keys of the platform",
    "tip_nodes": "hashes only",
}
"""Table -> why every scope may see it."""


def walled() -> tuple[str, ...]:
    return tuple(sorted(name for name in Row.metadata.tables if name not in OPEN))
