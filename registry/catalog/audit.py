"""Is everything as the log says, and the log as it was signed?"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from registry.catalog.projection import apply
from registry.digests import Digest, chunks
from registry.errors import BlobCorrupt, BlobNotFound, InvalidDocument, TenonError
from registry.log.entries import Entry, Head
from registry.log.merkle import Frontier, leaf_hash
from registry.log.verify import Fault, verify_log
from registry.models import PublicKey
from registry.ports import Blobs
from registry.signing.envelope import Envelope
from registry.store.database import scratch
from registry.store.transaction import Transaction

_Rows: TypeAlias = Mapping[tuple[str, tuple[object, ...]], dict[str, object]]


def audit(rows: Transaction, *, log_key: PublicKey, blobs: Blobs | None) -> list[Fault]:
    """Every fault; an empty list means intact.

    Only heads by ``log_key`` count. A key that the log itself declares could have been put there by whoever
    rewrote the log.
    """
    faults = [Fault("database file", line) for line in rows.integrity()]
    heads: list[Envelope] = []
    for size, text in rows.log.head_texts():
        try:
            head = Envelope.parse(text)
            declared = Head.parse(head.body()).size
        except TenonError as error:
            faults.append(Fault(f"head of size {size}", error.message))
            continue
        if declared != size:
            faults.append(Fault(f"head of size {size}", f"it was signed over {declared} entries"))
        heads.append(head)
    faults += verify_log(rows.log.raw(), heads, {log_key.id: log_key})
    entries, trees = _read(rows)
    faults += _uncovered(rows, trees[0].size)
    faults += _frontier(rows, trees)
    return faults + _replay(rows, entries, blobs)


def _read(rows: Transaction) -> tuple[list[Entry], tuple[Frontier, Frontier]]:
    """(the readable entries, the trees over their bytes and over their stored leaf hashes).

    What cannot be read, ``verify_log`` has already named.
    """
    entries: list[Entry] = []
    actual, stored = Frontier(), Frontier()
    for _, data, leaf in rows.log.raw():
        actual.append(leaf_hash(data))
        stored.append(leaf if len(leaf) == 32 else bytes(32))
        try:
            entries.append(Entry.parse(data))
        except InvalidDocument:
            continue
    return entries, (actual, stored)


def _uncovered(rows: Transaction, size: int) -> Iterator[Fault]:
    signed = max((size for size, _ in rows.log.head_texts()), default=0)
    if signed < size:
        last = f"entry {signed}" if signed + 1 == size else f"entries {signed} to {size - 1}"
        yield Fault(last, "no head was signed over it: it was not written by the registry")


def _frontier(rows: Transaction, trees: tuple[Frontier, Frontier]) -> Iterator[Fault]:
    """A fault of its own only if it fits neither tree: one changed entry is one fault, not two."""
    try:
        found = rows.log.frontier()
    except (TenonError, TypeError, ValueError) as error:
        yield Fault("frontier", error.message if isinstance(error, TenonError) else "it cannot be read")
        return
    if all((found.size, found.peaks) != (tree.size, tree.peaks) for tree in trees):
        yield Fault("frontier", "it does not belong to the entries")


def _replay(rows: Transaction, entries: list[Entry], blobs: Blobs | None) -> list[Fault]:
    """The tables beside those that the entries give when they are applied again."""
    at = -1
    faults: list[Fault] = []
    expected: _Rows | None = None
    wanted: dict[Digest, str] = {}
    try:
        with scratch() as again:
            for entry in entries:
                at = entry.index
                apply(again, entry)
            expected = {(table, key): columns for table, key, columns in again.projection()}
            wanted = _wanted(again)
    except TenonError as error:
        faults.append(Fault(f"entry {at}", f"replay stops here: {error.message}"))
    if expected is not None:
        actual = {(table, key): columns for table, key, columns in rows.projection()}
        faults += _compare(expected, actual)
    if blobs is not None:
        faults += _blobs(blobs, wanted)
    return faults


def _compare(expected: _Rows, actual: _Rows) -> Iterator[Fault]:
    for where, columns in expected.items():
        name = _name(where)
        found = actual.get(where)
        if found is None:
            yield Fault(f"entry {columns['entry']}", f"{name} was removed behind the log's back")
        elif found != columns:
            changed = ", ".join(sorted(key for key in columns if columns[key] != found[key]))
            yield Fault(f"entry {columns['entry']}", f"{name}: {changed} was changed behind the log's back")
    for where in actual.keys() - expected.keys():
        yield Fault(_name(where), "no entry of the log says so")


def _name(where: tuple[str, tuple[object, ...]]) -> str:
    table, key = where
    return f"{table} {'/'.join(str(part) for part in key)}"


def _wanted(rows: Transaction) -> dict[Digest, str]:
    """Blob -> the first version and file that needs it."""
    wanted: dict[Digest, str] = {}
    for version in rows.versions.all():
        manifest = version.manifest
        for ref in (*manifest.files, manifest.contract, manifest.fingerprint):
            if ref is not None:
                wanted.setdefault(ref.digest, f"{ref.path} of {version.name}@{version.digest}")
    return wanted


def _blobs(blobs: Blobs, wanted: Mapping[Digest, str]) -> Iterator[Fault]:
    """Those that versions need, then all others that lie there."""
    for digest in (*wanted, *(digest for digest in blobs.digests() if digest not in wanted)):
        what = wanted.get(digest, "which no version needs")
        try:
            with blobs.open(digest) as stream:
                for _ in chunks(stream):
                    pass
        except BlobNotFound:
            yield Fault(f"blob {digest}", f"missing: {what}")
        except BlobCorrupt:
            yield Fault(f"blob {digest}", f"its bytes are not those of its digest: {what}")
