"""Heads of the routers' chains, and the records that were shipped."""

from registry.catalog import records, shipped
from registry.catalog.local.part import Part
from registry.log.entries import Entry
from registry.shipping import KnownHead, RecordBatch, Stored
from registry.signing.envelope import Envelope


class Records(Part):
    def record_head(self, envelope: Envelope, *, actor: str) -> None:
        """Raises SignatureInvalid, RecordHeadInvalid, RecordHeadRegressed."""
        with self._change_by(actor) as change:
            records.record(change, envelope)

    def record_head_known(self, writer: str) -> KnownHead:
        """What the writer's next head must continue."""
        with self._database.read() as rows:
            return records.known(rows, writer)

    def record_heads(self) -> tuple[Envelope, ...]:
        """All that were accepted, oldest first."""
        with self._database.read() as rows:
            return records.heads(rows)

    def ship_records(self, batch: RecordBatch) -> Stored:
        """Raises RecordsMissing, RecordsInvalid; nothing of the batch is kept then."""
        with self._database.write() as rows:
            return shipped.ship(rows, batch)

    def records_stored(self, writer: str) -> Stored:
        with self._database.read() as rows:
            return shipped.stored(rows, writer)

    def shipped_writers(self) -> tuple[str, ...]:
        with self._database.read() as rows:
            return rows.shipped.writers()

    def shipped_lines(self, writer: str, first: int, most: int) -> tuple[str, ...]:
        """At most ``most``, in order, from record ``first`` on."""
        with self._database.read() as rows:
            return rows.shipped.lines(writer, first, most)

    def record_head_over(self, writer: str, seq: int) -> Entry | None:
        """The oldest entry whose head has the writer's record ``seq`` under its root."""
        with self._database.read() as rows:
            return records.covering(rows, writer, seq)
