"""The log applied again, to empty tables: what the real ones must hold."""

import hashlib
from collections.abc import Iterator
from typing import TypeAlias

from registry.catalog.projection import apply, owner
from registry.digests import Digest
from registry.errors import TenonError
from registry.log.entries import Entry
from registry.log.tips import Tips
from registry.log.verify import Fault
from registry.store.database import translated
from registry.store.transaction import Transaction

_Where: TypeAlias = tuple[str, tuple[object, ...]]


class Replay:
    """Stops at the first entry that cannot be applied, and says so."""

    def __init__(self, again: Transaction) -> None:
        """``again``: empty tables."""
        self._again = again
        self.tips = Tips()
        self.faults: list[Fault] = []
        self.stopped = False

    def read(self, entry: Entry, leaf: bytes, kept_as: str | None) -> None:
        """``kept_as``: the tenant in the entry's derived column."""
        if self.stopped:
            return
        try:
            with translated():  # a row that contradicts the others is a fault of the entry, too
                tenant = owner(self._again, entry.kind, entry.subject, entry.body)
                apply(self._again, entry)
        except (TenonError, KeyError, TypeError, ValueError) as error:
            what = error.message if isinstance(error, TenonError) else "it lacks what its kind needs"
            self.stop(f"entry {entry.index}", f"replay stops here: {what}")
            return
        if tenant is not None:
            self.tips.read(tenant, leaf)
        if tenant != kept_as:
            what = f"it is {tenant or 'the platform'}'s and kept as {kept_as or 'the platform'}'s"
            self.faults.append(Fault(f"entry {entry.index}", what))

    def stop(self, where: str, what: str) -> None:
        self.stopped = True
        self.faults.append(Fault(where, what))

    def compare(self, rows: Transaction) -> Iterator[Fault]:
        """Row by row, in whatever order: of the expected ones only 16 bytes each are held."""
        expected = {
            (table, key): (_digest(columns), columns["entry"])
            for table, key, columns in self._again.projection()
        }
        changed: dict[_Where, dict[str, object]] = {}
        for table, key, columns in rows.projection():
            where = (table, key)
            digest, _ = expected.pop(where, (b"", None))
            if not digest:
                yield Fault(_name(where), "no entry of the log says so")
            elif digest != _digest(columns):
                changed[where] = columns
        for where, (_, entry) in expected.items():
            yield Fault(f"entry {entry}", f"{_name(where)} was removed behind the log's back")
        if changed:
            yield from self._differences(changed)

    def wanted(self) -> dict[Digest, str]:
        """Blob -> the first version and file that needs it; what a revoked one had may be collected."""
        wanted: dict[Digest, str] = {}
        for version in self._again.versions.all():
            if version.revoked:
                continue
            for blob, what in version.blobs.items():
                wanted.setdefault(blob, f"{what} of {version.name}@{version.digest}")
        return wanted

    def _differences(self, changed: dict[_Where, dict[str, object]]) -> Iterator[Fault]:
        for table, key, columns in self._again.projection():
            found = changed.get((table, key))
            if found is not None:
                names = ", ".join(sorted(name for name in columns if columns[name] != found[name]))
                what = f"{_name((table, key))}: {names} was changed behind the log's back"
                yield Fault(f"entry {columns['entry']}", what)


def _digest(columns: dict[str, object]) -> bytes:
    text = repr(sorted(columns.items())).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _name(where: _Where) -> str:
    table, key = where
    return f"{table} {'/'.join(str(part) for part in key)}"
