"""The entries, the heads that were signed over them, and the frontier that makes appending cheap."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry import canonical
from registry.errors import InvalidDocument, LogCorrupt
from registry.log.entries import Entry
from registry.log.merkle import Frontier
from registry.signing.envelope import Envelope
from registry.store.rows import EntryRow, FrontierRow, HeadRow
from registry.store.tables.parsing import built, parsed, text_of


@dataclass(frozen=True, slots=True)
class LogTable:
    session: Session

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
        last = self.session.exec(select(EntryRow.position).order_by(col(EntryRow.position).desc())).first()
        if (-1 if last is None else last) + 1 != frontier.size:
            raise LogCorrupt(f"the frontier counts {frontier.size} entries, the log ends differently")
        return frontier

    def last_at(self) -> str:
        """The time of the newest entry; empty for an empty log."""
        return self.session.exec(select(EntryRow.at).order_by(col(EntryRow.position).desc())).first() or ""

    def append(self, entry: Entry, *, leaf: bytes, frontier: Frontier) -> None:
        """``frontier`` already holds ``leaf``."""
        self.session.add(
            EntryRow(
                position=entry.index,
                at=entry.at,
                actor=entry.actor,
                kind=entry.kind,
                subject=entry.subject,
                body=canonical.encode(entry.body).decode("utf-8"),
                leaf=leaf.hex(),
            )
        )
        row = self.session.get(FrontierRow, 1) or FrontierRow(size=0, peaks="")
        row.size, row.peaks = frontier.size, b"".join(frontier.peaks).hex()
        self.session.add(row)
        self.session.flush()

    def add_head(self, size: int, head: Envelope) -> None:
        self.session.add(HeadRow(size=size, envelope=text_of(head)))
        self.session.flush()

    def last_head(self) -> Envelope | None:
        row = self.session.exec(select(HeadRow).order_by(col(HeadRow.size).desc())).first()
        return parsed(Envelope, row.envelope) if row else None

    def head_texts(self) -> tuple[tuple[int, str], ...]:
        """(size, envelope as stored), oldest first; may be damaged."""
        rows = self.session.exec(select(HeadRow).order_by(col(HeadRow.size))).all()
        return tuple((row.size, row.envelope) for row in rows)

    def entries(self, start: int = 0, limit: int | None = None) -> tuple[Entry, ...]:
        found = select(EntryRow).where(col(EntryRow.position) >= start).order_by(col(EntryRow.position))
        return _entries(self.session.exec(found if limit is None else found.limit(limit)).all())

    def about(self, kind: str, subject: str) -> tuple[Entry, ...]:
        """All entries of one kind on one subject, oldest first."""
        found = select(EntryRow).where(EntryRow.subject == subject, EntryRow.kind == kind)
        return _entries(self.session.exec(found.order_by(col(EntryRow.position))).all())

    def of_kind(self, kind: str) -> tuple[Entry, ...]:
        found = select(EntryRow).where(EntryRow.kind == kind).order_by(col(EntryRow.position))
        return _entries(self.session.exec(found).all())

    def raw(self) -> Iterator[tuple[int, bytes, bytes]]:
        """(index, canonical bytes, stored leaf hash), put together from the columns without reading sense
        into them: for ``verify_log``, which must see exactly what is stored."""
        for row in self.session.exec(
            select(EntryRow).order_by(col(EntryRow.position)).execution_options(yield_per=1000)
        ):
            fields = {"index": row.position, "at": row.at, "actor": row.actor}
            fields |= {"kind": row.kind, "subject": row.subject}
            # RFC 8785 sorts keys: actor, at, body, index, kind, subject.
            shell = {name: canonical.encode(value).decode() for name, value in fields.items()} | {
                "body": row.body
            }
            text = ",".join(f'"{name}":{shell[name]}' for name in sorted(shell))
            yield row.position, f"{{{text}}}".encode("utf-8", "surrogatepass"), _hex(row.leaf)


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
        Entry, index=row.position, at=row.at, actor=row.actor, kind=row.kind, subject=row.subject, body=body
    )
