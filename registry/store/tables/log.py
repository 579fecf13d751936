"""The entries, the heads that were signed over them, and the frontier that makes appending cheap."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, select

from registry import canonical
from registry.errors import InvalidDocument, LogCorrupt, SignatureInvalid
from registry.log.entries import Entry, Head, TipsRoot
from registry.log.merkle import Frontier
from registry.log.tiles import Tiles
from registry.log.tips import Tip
from registry.models import PublicKey
from registry.signing.envelope import Envelope
from registry.store.rows import EntryRow, FrontierRow, HeadRow, SignerRow
from registry.store.tables.parsing import built, parsed, text_of
from registry.store.tables.tree import TreeTable


@dataclass(frozen=True, slots=True)
class LogTable:
    session: Session
    whole: bool = True
    """False: only one tenant's entries are there."""

    def size(self) -> int:
        row = self.session.get(FrontierRow, 1)
        return row.size if row else 0

    def frontier(self) -> Frontier:
        """Raises LogCorrupt when it does not fit the entries: then nothing may be appended."""
        row = self.session.get(FrontierRow, 1)
        try:
            raw = bytes.fromhex(row.peaks) if row else b""
            frontier = Frontier(row.size if row else 0, [raw[at : at + 32] for at in range(0, len(raw), 32)])
        except ValueError as error:
            raise LogCorrupt(f"the stored frontier is damaged: {error}") from None
        if self.whole:
            # LIMIT, as first() alone makes PostgreSQL send every row there is.
            newest = select(EntryRow.position).order_by(col(EntryRow.position).desc()).limit(1)
            last = self.session.exec(newest).first()
            size = 0 if last is None else last + 1
        else:
            newest = select(HeadRow.size).order_by(col(HeadRow.size).desc()).limit(1)
            size = self.session.exec(newest).first() or 0
        if size != frontier.size:
            raise LogCorrupt(f"the frontier counts {frontier.size} entries, the log ends differently")
        return frontier

    def last_at(self) -> str:
        """The time of the newest entry; empty for an empty log.

        From its head, which is signed and which every scope may see.
        """
        head = self.last_head()
        try:
            return Head.parse(head.body()).at if head else ""
        except (InvalidDocument, SignatureInvalid):
            raise LogCorrupt("the newest head cannot be read: nothing may be appended") from None

    def append(
        self,
        entry: Entry,
        *,
        leaf: bytes,
        frontier: Frontier,
        completed: tuple[bytes, ...],
        tenant: str | None,
    ) -> None:
        """``frontier`` already holds ``leaf`` and gave ``completed`` for it."""
        self.session.add(
            EntryRow(
                position=entry.index,
                at=entry.at,
                actor=entry.actor,
                kind=entry.kind,
                subject=entry.subject,
                body=canonical.encode(entry.body).decode("utf-8"),
                leaf=leaf.hex(),
                tenant=tenant,
                salt=entry.salt,
            )
        )
        self.tree.extend(entry.index, completed)
        row = self.session.get(FrontierRow, 1) or FrontierRow(size=0, peaks="")
        row.size, row.peaks = frontier.size, b"".join(frontier.peaks).hex()
        self.session.add(row)
        self.session.flush()

    def add_head(self, size: int, head: Envelope) -> None:
        self.session.add(HeadRow(size=size, envelope=text_of(head)))
        self.session.flush()
        self.session.info["head"] = {"newest": head}

    @property
    def tree(self) -> TreeTable:
        return TreeTable(self.session)

    def tiles(self) -> Tiles:
        """To make proofs from; as far as entries were appended."""
        return self.tree.tiles(self.size())

    def tip(self, tenant: str) -> tuple[int | None, Tip]:
        return self.tree.tip(tenant)

    def put_tip(self, position: int | None, tip: Tip) -> None:
        self.tree.put_tip(position, tip)

    def tips_root(self) -> TipsRoot:
        return self.tree.tips_root()

    def log_keys(self) -> Mapping[str, PublicKey]:
        rows = self.session.exec(select(SignerRow).where(SignerRow.role == "log")).all()
        return {row.id: built(PublicKey, id=row.id, role=row.role, ed25519=row.ed25519) for row in rows}

    def head(self, size: int) -> Envelope | None:
        row = self.session.get(HeadRow, size)
        return parsed(Envelope, row.envelope) if row else None

    def heads(self, *, after: int = 0, limit: int | None = None) -> tuple[Envelope, ...]:
        """Those over more than ``after`` entries, oldest first."""
        found = select(HeadRow).where(col(HeadRow.size) > after).order_by(col(HeadRow.size))
        rows = self.session.exec(found if limit is None else found.limit(limit)).all()
        return tuple(parsed(Envelope, row.envelope) for row in rows)

    def last_head(self) -> Envelope | None:
        """Remembered within the transaction, in which nobody else can sign another one."""
        known: dict[str, Envelope | None] = self.session.info.setdefault("head", {})
        if "newest" not in known:
            # One column and no row object: this is asked with every request that shows a key.
            newest = select(HeadRow.envelope).order_by(col(HeadRow.size).desc()).limit(1)
            text = self.session.exec(newest).first()
            known["newest"] = None if text is None else parsed(Envelope, text)
        return known["newest"]

    def head_texts(self) -> Generator[tuple[int, str], None, None]:
        """(size, envelope as stored), oldest first; may be damaged."""
        found = select(HeadRow.size, HeadRow.envelope).order_by(col(HeadRow.size))
        with self.session.execute(found, execution_options={"yield_per": 1000}) as rows:
            yield from (tuple(row) for row in rows)

    def entries(
        self, start: int = 0, limit: int | None = None, *, tenant: str | None = None
    ) -> tuple[Entry, ...]:
        """``tenant``: only those that are this tenant's."""
        found = select(EntryRow).where(col(EntryRow.position) >= start).order_by(col(EntryRow.position))
        if tenant is not None:
            found = found.where(EntryRow.tenant == tenant)
        return _entries(self.session.exec(found if limit is None else found.limit(limit)).all())

    def about(
        self, kind: str, subject: str, *, after: int | None = None, limit: int | None = None
    ) -> tuple[Entry, ...]:
        """Entries of one kind on one subject, oldest first; ``after``: an index."""
        found = select(EntryRow).where(EntryRow.subject == subject, EntryRow.kind == kind)
        if after is not None:
            found = found.where(col(EntryRow.position) > after)
        found = found.order_by(col(EntryRow.position))
        return _entries(self.session.exec(found if limit is None else found.limit(limit)).all())

    def back(self, kind: str, subject: str) -> Iterator[Entry]:
        """The same, newest first, read as far as somebody looks."""
        found = select(EntryRow).where(EntryRow.subject == subject, EntryRow.kind == kind)
        found = found.order_by(col(EntryRow.position).desc())
        before, size = None, 8
        while True:
            page = found if before is None else found.where(col(EntryRow.position) < before)
            entries = _entries(self.session.exec(page.limit(size)).all())
            yield from entries
            if len(entries) < size:
                return
            before, size = entries[-1].index, min(2 * size, 500)

    def count_about(self, kind: str, subject: str, *, until: int) -> int:
        """How many there are up to and with the index ``until``."""
        mine = (EntryRow.subject == subject, EntryRow.kind == kind, EntryRow.position <= until)
        return int(self.session.exec(select(sa.func.count()).select_from(EntryRow).where(*mine)).one())

    def newest(self, kind: str, subjects: Sequence[str]) -> tuple[Entry, ...]:
        """Of each of ``subjects`` that has any of that kind, the newest."""
        subject = col(EntryRow.subject)
        mine = sa.and_(col(EntryRow.kind) == kind, subject.in_(subjects))
        last = sa.select(sa.func.max(col(EntryRow.position))).where(mine).group_by(subject)
        return self.at(self.session.execute(last).scalars().all())

    def at(self, positions: Sequence[int]) -> tuple[Entry, ...]:
        """By index."""
        found = select(EntryRow).where(col(EntryRow.position).in_(positions)).order_by(col(EntryRow.position))
        return _entries(self.session.exec(found).all())

    def owners(self) -> Generator[tuple[int, str | None], None, None]:
        """(index, tenant as stored) of every entry."""
        found = select(EntryRow.position, EntryRow.tenant).order_by(col(EntryRow.position))
        with self.session.execute(found, execution_options={"yield_per": 1000}) as rows:
            yield from (tuple(row) for row in rows)

    def of_kind(self, kind: str) -> tuple[Entry, ...]:
        found = select(EntryRow).where(EntryRow.kind == kind).order_by(col(EntryRow.position))
        return _entries(self.session.exec(found).all())

    def raw(
        self,
        start: int = 0,
        limit: int | None = None,
        *,
        tenant: str | None = None,
        kinds: Sequence[str] = (),
    ) -> Generator[tuple[int, bytes, bytes], None, None]:
        """(index, canonical bytes, stored leaf hash), put together from the columns without reading sense
        into them: for ``verify_log``, which must see exactly what is stored."""
        found = sa.select(
            col(EntryRow.position),
            col(EntryRow.at),
            col(EntryRow.actor),
            col(EntryRow.kind),
            col(EntryRow.subject),
            col(EntryRow.body),
            col(EntryRow.leaf),
            col(EntryRow.salt),
        ).where(col(EntryRow.position) >= start)
        if tenant is not None:
            found = found.where(col(EntryRow.tenant) == tenant)
        if kinds:
            found = found.where(col(EntryRow.kind).in_(kinds))
        found = found.order_by(col(EntryRow.position))
        found = found if limit is None else found.limit(limit)
        with self.session.execute(found, execution_options={"yield_per": 1000}) as rows:
            for position, at, actor, kind, subject, body, leaf, salt in rows:
                # RFC 8785 sorts keys: actor, at, body, index, kind, salt, subject.
                fields = {"actor": actor, "at": at, "body": None, "index": position, "kind": kind}
                fields |= ({"salt": salt} if salt else {}) | {"subject": subject}
                text = ",".join(
                    f'"{name}":{body if name == "body" else canonical.encode(value).decode()}'
                    for name, value in fields.items()
                )
                yield position, f"{{{text}}}".encode("utf-8", "surrogatepass"), _hex(leaf)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _entries(rows: Sequence[EntryRow]) -> tuple[Entry, ...]:
    return tuple(_entry(row) for row in rows)


def _entry(row: EntryRow) -> Entry:
    try:
        body = canonical.decode(row.body)
    except InvalidDocument:
        raise LogCorrupt(f"entry {row.position} cannot be read", entry=row.position) from None
    return built(
        Entry,
        index=row.position,
        at=row.at,
        actor=row.actor,
        kind=row.kind,
        subject=row.subject,
        body=body,
        salt=row.salt,
    )
