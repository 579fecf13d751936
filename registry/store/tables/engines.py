"""Engines as they announced themselves, and the slots that were attested on them."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import EngineState, Slot
from registry.store.rows import EngineRow, SlotRow
from registry.store.tables.parsing import built, parsed, text_of


@dataclass(frozen=True, slots=True)
class EngineTable:
    session: Session

    def get(self, engine: str) -> EngineState | None:
        row = self.session.get(EngineRow, engine)
        return parsed(EngineState, row.document) if row else None

    def all(self) -> tuple[EngineState, ...]:
        rows = self.session.exec(select(EngineRow).order_by(col(EngineRow.engine))).all()
        return tuple(parsed(EngineState, row.document) for row in rows)

    def put(self, state: EngineState, *, entry: int) -> None:
        self.session.merge(
            EngineRow(
                engine=state.engine,
                boot=state.boot,
                base=str(state.base),
                document=text_of(state),
                entry=entry,
            )
        )
        self.session.flush()

    def slots(self, version: str | None = None) -> tuple[Slot, ...]:
        """All of them, or those of one version."""
        found = select(SlotRow).order_by(col(SlotRow.engine), col(SlotRow.version))
        if version is not None:
            found = found.where(SlotRow.version == version)
        rows = self.session.exec(found).all()
        return tuple(
            built(Slot, engine=row.engine, boot=row.boot, version=row.version, attestation=row.attestation)
            for row in rows
        )

    def entries(self) -> dict[tuple[str, str], int]:
        """(engine, version) of each slot -> index of the entry with its attestation."""
        rows = self.session.exec(select(SlotRow.engine, SlotRow.version, SlotRow.entry)).all()
        return {(engine, version): entry for engine, version, entry in rows}

    def put_slot(self, slot: Slot, *, entry: int) -> None:
        self.session.merge(
            SlotRow(
                engine=slot.engine,
                version=str(slot.version),
                boot=slot.boot,
                attestation=str(slot.attestation),
                entry=entry,
            )
        )
        self.session.flush()

    def drop_slots(self, *, engine: str | None = None, version: str | None = None) -> None:
        """Those of an engine, of a version, or of a version on an engine; never all."""
        if engine is None and version is None:
            raise ValueError("name an engine, a version or both")
        found = select(SlotRow)
        if engine is not None:
            found = found.where(SlotRow.engine == engine)
        if version is not None:
            found = found.where(SlotRow.version == version)
        for row in self.session.exec(found).all():
            self.session.delete(row)
        self.session.flush()
