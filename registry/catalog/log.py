"""What the log proves, and to whom: heads, proofs, one tenant's export, and the change of its key."""

from collections.abc import Iterator, Sequence
from typing import Final

from registry.catalog import tenants
from registry.catalog.change import Change
from registry.errors import AlreadyExists, EntryNotFound, HeadNotFound, InvalidInput
from registry.log.entries import Head
from registry.log.export import FACTS, Header, Line
from registry.log.handovers import Handover, KeyHistory, Succession
from registry.log.key_chain import LOG_KEY_ROTATED, Rotation
from registry.log.proofs import consistency_proof, inclusion_proof
from registry.log.statements import Consistency, Inclusion, digest
from registry.log.tiles import Tiles
from registry.models import PublicKey
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from registry.store.port import Store
from registry.store.transaction import Transaction

_PAGE: Final = 500
"""Entries of an export in one transaction: a slow reader must not hold one open."""


def head(rows: Transaction, size: int | None = None) -> Envelope:
    """The newest, or the one signed at exactly ``size`` entries. Raises HeadNotFound."""
    found = rows.log.last_head() if size is None else rows.log.head(size)
    if found is None:
        what = "nothing was signed yet" if size is None else f"no head was signed at {size} entries"
        raise HeadNotFound(what)
    return found


def inclusion(rows: Transaction, index: int, size: int | None = None) -> Inclusion:
    """``size``: None for the log as it is now. Raises EntryNotFound."""
    tiles = rows.log.tiles()
    size = tiles.size if size is None else size
    try:
        proof = inclusion_proof(tiles, index, size)
    except ValueError:
        raise EntryNotFound(f"there is no entry {index} in the first {size} of {tiles.size}") from None
    return Inclusion(
        index=index,
        size=size,
        leaf=digest(tiles.subtree(0, index)),
        root=digest(tiles.root(size)),
        proof=tuple(digest(node) for node in proof),
    )


def consistency(rows: Transaction, first: int, second: int | None = None) -> Consistency:
    """``second``: None for the log as it is now. Raises InvalidInput."""
    tiles = rows.log.tiles()
    second = tiles.size if second is None else second
    try:
        proof = consistency_proof(tiles, first, second)
    except ValueError:
        what = f"the log has {tiles.size} entries: {first} and {second} are not two sizes that it had"
        raise InvalidInput(what) from None
    return Consistency(
        first=first,
        second=second,
        first_root=digest(tiles.root(first)),
        second_root=digest(tiles.root(second)),
        proof=tuple(digest(node) for node in proof),
    )


def rotate(change: Change, successor: Signer) -> PublicKey:
    """Raises InvalidInput, AlreadyExists."""
    key = successor.public
    if key.role != "log":
        raise InvalidInput(f"heads are signed with a log key, not with a {key.role} key")
    if key == change.ledger.key:
        raise AlreadyExists(f"the log key {key.id} is in force already")
    if change.rows.signers.get(key.id) is not None or change.rows.signers.distrusted(key.id):
        raise AlreadyExists(f"the log knows the key {key.id} already: a log key is used once")
    change.write(LOG_KEY_ROTATED, key.id, Rotation(0, change.ledger.key, key).body())
    change.ledger.hand_over(successor)
    return key


def in_force(rows: Transaction) -> PublicKey | None:
    """The key that signs heads by what the log says; None before any rotation."""
    rotations = rows.log.of_kind(LOG_KEY_ROTATED)
    return Rotation.of(rotations[-1]).signer if rotations else None


def key_history(rows: Transaction) -> KeyHistory:
    """Raises HeadNotFound."""
    newest = head(rows)
    size = Head.parse(newest.body()).size
    tiles = rows.log.tree.tiles(size)
    entries = rows.log.of_kind(LOG_KEY_ROTATED)
    rotations = [Rotation.of(entry) for entry in entries]
    declared = rows.log.log_keys()
    signed = [declared[each.keyid] for each in newest.signatures if each.keyid in declared]
    return KeyHistory(
        head=newest,
        keys=_keys(rotations) or tuple(signed),
        successions=tuple(
            Succession(
                entry=entry.canonical().decode(),
                proof=_hex(inclusion_proof(tiles, entry.index, size)),
                handover=handover,
            )
            for entry, handover in zip(entries, _handovers(rows, rotations, tiles, size), strict=True)
        ),
    )


def export(store: Store, tenant: str, *, log_key: PublicKey) -> Iterator[bytes]:
    """See :mod:`registry.log.export`. Raises TenantNotFound, HeadNotFound, before the first line.

    Only hashes of others' entries are read, and with row-level security no more could be: the tenant's
    entries come out of a scope of its own.
    """
    with store.read() as rows:
        tenants.require(rows, tenant)
        envelope = head(rows)
        size = Head.parse(envelope.body()).size
        header, facts = _header(rows, tenant, envelope, log_key)
    return _lines(store.within(tenant), tenant, size, header, facts)


def _lines(store: Store, tenant: str, size: int, header: Header, facts: list[Line]) -> Iterator[bytes]:
    yield header.canonical() + b"\n"
    for line in facts:
        yield line.canonical() + b"\n"
    start = 0
    while start < size:
        with store.read() as rows:
            lines, start = _page(rows, tenant, start, size)
        for line in lines:
            yield line.canonical() + b"\n"


def _page(rows: Transaction, tenant: str, start: int, size: int) -> tuple[list[Line], int]:
    """(the next lines, where the ones after them begin)"""
    tiles = rows.log.tree.tiles(size)
    found = list(rows.log.raw(start, _PAGE, tenant=tenant))
    lines = [
        Line(entry=data.decode(), proof=_hex(inclusion_proof(tiles, index, size)))
        for index, data, _ in found
        if index < size
    ]
    return lines, found[-1][0] + 1 if len(found) == _PAGE else size


def _header(
    rows: Transaction, tenant: str, envelope: Envelope, log_key: PublicKey
) -> tuple[Header, list[Line]]:
    signed = Head.parse(envelope.body())
    tiles = rows.log.tree.tiles(signed.size)
    facts = [
        Line(entry=data.decode(), proof=_hex(inclusion_proof(tiles, index, signed.size)))
        for index, data, _ in rows.log.raw(kinds=FACTS)
        if index < signed.size
    ]
    rotations = [Rotation.of(entry) for entry in rows.log.of_kind(LOG_KEY_ROTATED)]
    position, tip = rows.log.tip(tenant)
    counted = signed.tenants is not None and position is not None
    tips = rows.log.tree.tip_tiles()
    proof = _hex(inclusion_proof(tips, position, tips.size)) if counted and position is not None else ()
    header = Header(
        tenant=tenant,
        head=envelope,
        keys=_keys(rotations) or (log_key,),
        handovers=_handovers(rows, rotations, tiles, signed.size),
        tip=tip.canonical().decode() if counted else None,
        tip_index=position if counted else None,
        tip_proof=proof,
        facts=len(facts),
        entries=tip.entries,
    )
    return header, facts


def _keys(rotations: Sequence[Rotation]) -> tuple[PublicKey, ...]:
    return (*(each.previous for each in rotations[:1]), *(each.signer for each in rotations))


def _handovers(
    rows: Transaction, rotations: Sequence[Rotation], tiles: Tiles, size: int
) -> tuple[Handover, ...]:
    return tuple(
        Handover(
            head=head(rows, each.index + 1),
            consistency=_hex(consistency_proof(tiles, each.index + 1, size)),
        )
        for each in rotations
    )


def _hex(nodes: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(node.hex() for node in nodes)
