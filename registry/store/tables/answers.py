"""What writes with an idempotency key were answered."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, delete, update

from registry.store.rows import AnswerRow

_CLAIM = sa.text(
    "INSERT INTO answers (actor, key, request, status, headers, body, at)"
    " VALUES (:actor, :key, :request, NULL, '', '', :at)"
    " ON CONFLICT (actor, key) DO UPDATE"
    " SET request = excluded.request, status = NULL, headers = '', body = '', at = excluded.at"
    " WHERE answers.at < :expired"
    " OR (answers.status IS NULL AND answers.request = excluded.request AND answers.at <= :lapsed)"
    " RETURNING at"
)
"""One statement, because nothing else keeps two requests with the same key apart."""


@dataclass(frozen=True, slots=True)
class Answer:
    request: str
    """Digest of what was asked."""
    status: int | None
    """None while the first request is still being answered, or was cut off."""
    headers: str
    body: str
    at: str


@dataclass(frozen=True, slots=True)
class AnswerTable:
    session: Session

    def get(self, actor: str, key: str) -> Answer | None:
        row = self.session.get(AnswerRow, (actor, key))
        return Answer(row.request, row.status, row.headers, row.body, row.at) if row else None

    def claim(self, actor: str, key: str, request: str, *, at: str, lapsed: str, expired: str) -> bool:
        """Whether ``request`` is now to be answered by whoever asked: nobody has this key, or what has it is
        older than ``expired``, or it is the same request, unanswered since ``lapsed``."""
        values = {"actor": actor, "key": key, "request": request, "at": at}
        taken = self.session.connection().execute(_CLAIM, values | {"lapsed": lapsed, "expired": expired})
        return taken.first() is not None

    def answer(self, actor: str, key: str, at: str, *, status: int, headers: str, body: str) -> None:
        """Nothing happens to a claim that is not the one of ``at`` any more."""
        kept = update(AnswerRow).where(*self._claimed(actor, key, at))
        self.session.exec(kept.values(status=status, headers=headers, body=body))

    def drop(self, actor: str, key: str, at: str) -> None:
        self.session.exec(delete(AnswerRow).where(*self._claimed(actor, key, at)))

    def drop_before(self, at: str) -> None:
        self.session.exec(delete(AnswerRow).where(col(AnswerRow.at) < at))

    @staticmethod
    def _claimed(actor: str, key: str, at: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            col(AnswerRow.actor) == actor,
            col(AnswerRow.key) == key,
            col(AnswerRow.at) == at,
            col(AnswerRow.status).is_(None),
        )
