"""What can be wrong with the database itself."""

from registry.errors import Conflict, Corrupt, TenonError


class SchemaOutdated(Conflict):
    """The database was written by an older Tenon (or, after a roll back of Tenon, by a newer one)."""

    code, status = "schema_outdated", 503
    hint = "stop Tenon's processes, back the file up, then run: tenon init --upgrade"


class StoreBusy(TenonError):
    code, status = "store_busy", 503
    hint = "another process holds the database: try again"


class StoreUnavailable(TenonError):
    code, status = "store_unavailable", 503
    hint = "check that the disk is not full and that the database can be written"


class StoreUnsuitable(TenonError):
    """Tenants' rows would lie there without the walls that this Tenon counts on."""

    code, status = "store_unsuitable", 503
    hint = "connect as a role without SUPERUSER and BYPASSRLS: docs/guides/storage.md"


class ScopeViolated(TenonError):
    """Row-level security stopped what the code before it should have stopped."""

    code, status = "scope_violated", 500
    hint = "this is a fault of Tenon: report it; no other tenant's row was read or changed"


class StoreConflict(Conflict):
    """A foreign key, a uniqueness rule or an append-only trigger said no: nothing of the change was kept."""

    code = "store_conflict"


class StoreCorrupt(Corrupt):
    code = "store_corrupt"
    hint = "run tenon log verify: it names every entry that does not match"
