"""What writes with an idempotency key were answered."""

from dataclasses import dataclass

from sqlmodel import Session, col, delete

from registry.store.rows import AnswerRow


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

    def put(self, actor: str, key: str, answer: Answer) -> None:
        self.session.merge(
            AnswerRow(
                actor=actor,
                key=key,
                request=answer.request,
                status=answer.status,
                headers=answer.headers,
                body=answer.body,
                at=answer.at,
            )
        )
        self.session.flush()

    def drop(self, actor: str, key: str) -> None:
        mine = (col(AnswerRow.actor) == actor, col(AnswerRow.key) == key)
        self.session.exec(delete(AnswerRow).where(*mine))

    def drop_before(self, at: str) -> None:
        self.session.exec(delete(AnswerRow).where(col(AnswerRow.at) < at))
