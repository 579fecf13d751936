"""Which stored bytes nobody can need any more, and taking them away.

A blob goes only if no version names it (a revoked one counts until nothing can know it any more) *and* nobody
has put or renewed it for the grace: whoever pushes puts its blobs first and names them afterwards, so between
the two a young age is all that speaks for them. The moment from which on a blob is young is fixed before the
versions are read. A push that names a blob has renewed it, and if that was before this moment, the push was
over before the versions were read (it takes less than the grace) and they name the blob.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from registry.blobs.uploads import Uploads
from registry.clock import Clock, stamp
from registry.digests import Digest
from registry.errors import InvalidInput
from registry.ports import BlobStore, Leftovers, Stored
from registry.store.errors import ScopeViolated
from registry.store.port import Store
from registry.store.transaction import Transaction

GRACE: Final = timedelta(hours=24)
LEAST_GRACE: Final = timedelta(hours=1)
"""Above the longest push (4 GiB at 10 Mbit/s take 57 minutes), and six times what S3Blobs calls young."""


@dataclass(frozen=True, slots=True)
class Collection:
    removed: tuple[Stored, ...]
    """Blobs; without ``delete`` those that would have been removed."""
    kept: Leftovers
    """How many blobs stay, and their bytes."""
    halves: Leftovers
    """Of blobs, left by crashes."""
    uploads: Leftovers
    """Abandoned ones."""
    claims: int
    """Tenants' claims to blobs that are gone."""


def collect(
    store: Store,
    blobs: BlobStore,
    uploads: Uploads,
    *,
    clock: Clock,
    grace: timedelta = GRACE,
    delete: bool = False,
) -> Collection:
    """Safe beside pushes, other collections and engines. Raises ScopeViolated for one tenant's store."""
    if grace < LEAST_GRACE:
        raise InvalidInput("the grace is an hour or more: a push under way needs its blobs")
    before = clock.now() - grace
    with store.read() as rows:
        needed = _needed(rows, stamp(before))
    removed: list[Stored] = []
    there: set[Digest] = set()
    count = size = 0
    for blob in blobs.stored():
        garbage = blob.digest not in needed and blob.renewed_at < before
        if garbage and (not delete or blobs.delete_for_ever(blob.digest, unless_renewed_since=before)):
            removed.append(blob)
        else:
            there.add(blob.digest)
            count, size = count + 1, size + blob.size
    claims = 0
    for claim in uploads.claims.all():
        if claim.digest not in there and claim.at < before and not (delete and blobs.has(claim.digest)):
            claims += 1
            if delete:
                uploads.claims.remove(claim)
    return Collection(
        removed=tuple(removed),
        kept=Leftovers(count, size),
        halves=blobs.leftovers(before=before, delete=delete),
        uploads=uploads.sweep(before=before, delete=delete),
        claims=claims,
    )


def _needed(rows: Transaction, before: str) -> set[Digest]:
    if not rows.log.whole:
        raise ScopeViolated("a collection must see the versions of all tenants")
    up = {engine.engine for engine in rows.engines.all() if engine.up}
    held = {slot.version for slot in rows.engines.slots() if slot.engine in up}
    needed: set[Digest] = set()
    for version, entry in rows.versions.each():
        if version.revoked and version.digest not in held:
            (last,) = rows.log.entries(entry, 1)
            if last.at < before:
                continue
        needed.update(version.blobs)
    return needed
