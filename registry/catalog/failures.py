"""What engines found wrong with versions, as the log has it: why an engine that should hold one does not."""

from collections.abc import Collection, Iterator
from typing import Final, TypeAlias

from registry.catalog.projection import ENGINE_ATTESTED
from registry.digests import Digest
from registry.fingerprint import Attestation
from registry.log.entries import Entry
from registry.names import Name
from registry.signing.envelope import Envelope
from registry.store.transaction import Transaction

Sought: TypeAlias = tuple[Name, str, Digest]
"""(engine, boot, version)"""
_AT_ONCE: Final = 500
"""Subjects in one query: SQLite takes 999 variables where it is old."""
_LONGEST: Final = 300
"""Characters of a reason: it is shown in tables and within errors."""


def subject(found: Attestation) -> str:
    """Of a failed attestation's entry: it leaves nothing in the tables to find it by, and a boot has few.

    One that passed has its own digest for a subject, and so had failed ones in logs of before."""
    return _subject(found.engine, found.boot, found.version)


def reasons(rows: Transaction, sought: Collection[Sought]) -> dict[tuple[Name, Digest], str]:
    """(engine, version) -> the reason of the newest failed attestation of that boot, where the log has one.

    Costs an index look-up for each that is sought, however long the log is.
    """
    asked = sorted(_subject(*each) for each in sought)
    found = {}
    for start in range(0, len(asked), _AT_ONCE):
        for entry in rows.log.newest(ENGINE_ATTESTED, asked[start : start + _AT_ONCE]):
            said = _attestation(entry)
            found[said.engine, said.version] = _shown(said.reason)
    return found


def known(rows: Transaction, found: Attestation) -> Iterator[Envelope]:
    """All failed attestations of the same version on the same boot."""
    for entry in rows.log.back(ENGINE_ATTESTED, subject(found)):
        yield Envelope.build(entry.body["envelope"])


def _subject(engine: str, boot: str, version: str) -> str:
    return f"{engine}/{boot}/{version}"


def _attestation(entry: Entry) -> Attestation:
    return Attestation.parse(Envelope.build(entry.body["envelope"]).body())


def _shown(reason: str) -> str:
    text = "".join(each if each.isprintable() else " " for each in reason)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
