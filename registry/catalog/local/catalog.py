"""A registry on this machine: everything that can be asked of it and done to it."""

from registry.catalog import log
from registry.catalog.change import changing
from registry.catalog.local.aliases import Aliases
from registry.catalog.local.bases import Bases
from registry.catalog.local.engines import Engines
from registry.catalog.local.feed import Feed
from registry.catalog.local.keys import Keys
from registry.catalog.local.log import Log
from registry.catalog.local.policies import Policies
from registry.catalog.local.proposals import Proposals
from registry.catalog.local.records import Records
from registry.catalog.local.reports import Reports
from registry.catalog.local.routing import Routes
from registry.catalog.local.signers import Signers
from registry.catalog.local.tenants import Tenants
from registry.catalog.local.usage import Usage
from registry.catalog.local.versions import Versions
from registry.models import PublicKey
from registry.signing.keys import Signer


class LocalCatalog(
    Tenants,
    Keys,
    Signers,
    Bases,
    Policies,
    Routes,
    Versions,
    Reports,
    Aliases,
    Proposals,
    Usage,
    Engines,
    Records,
    Feed,
    Log,
):
    """Everything that can be asked of and done to a registry. Safe to share between threads, and between
    processes by opening the same database.

    Every method that takes ``actor`` is one transaction: the change and its log entry, or an error and
    nothing.
    """

    def rotate_log_key(self, successor: Signer, *, actor: str) -> PublicKey:
        """Heads are signed with ``successor`` from here on, by this catalog too; keep its key first.

        Other processes must start again with it. Raises AlreadyExists.
        """
        with self._change_by(actor) as change:
            key = log.rotate(change, successor)
        self._signer, self._log_key = successor, key
        self._write = changing(self._database, signer=successor, clock=self._clock, entropy=self._entropy)
        return key
