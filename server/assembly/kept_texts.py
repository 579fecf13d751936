"""Records by their id, and the texts that were kept of them, for who has the router's retention key."""

import os
from pathlib import Path

from registry import canonical
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.models import Retention
from router.errors import TextNotKept, TextUnreadable
from router.records.record import Record
from router.records.segments import segments_of
from router.retention.kept import Kept
from router.retention.sealed import Text, unseal
from router.retention.tenant_keys import FOLDER, TenantKeys
from router.retention.texts import find
from server.assembly.secrets import read_secret
from server.errors import RecordNotFound


def find_record(records: Path, identity: str) -> Record:
    """The outcome of a request, whichever writer below ``records`` wrote it. Raises RecordNotFound."""
    wanted = f'"id":"{identity}"'.encode()
    for folder in _writers(records):
        for segment in segments_of(folder):
            with segment.open("rb") as stream:
                for line in stream:
                    if wanted not in line:
                        continue
                    try:
                        record = Record.parse(line.rstrip(b"\n"))
                    except InvalidDocument:  # tenon log verify tells of it
                        continue
                    if record.id == identity and record.event != "intent":
                        return record
    raise RecordNotFound(f"there is no record {identity[:80]!r} in {records}")


def open_text(records: Path, record: Record, key_file: Path) -> Text:
    """What was asked and answered, proved by the record to be just that.

    Raises TextNotKept, TextUnreadable (the tenant's key was deleted, or bytes were changed).
    """
    folder = records / record.writer
    texts = list(find(folder, record.id))
    if not texts or record.tenant is None:
        raise TextNotKept
    key = _keys(folder, key_file).existing(record.tenant)
    if key is None:
        raise TextUnreadable
    said = Kept(Retention.HMAC, b"", key)
    for sealed in texts:
        text = unseal(sealed, key)
        answered = record.answer is None or said.of_answer(text.answer) == record.answer
        if answered and said.of_question(text.question) == record.request:
            return text
    raise TextUnreadable


def forget_tenant(records: Path, tenant: str) -> list[str]:
    """Delete the tenant's keys of all writers; returns their names. No retention key is needed for it."""
    forgotten = []
    for folder in _writers(records):
        keys = TenantKeys(folder, writer=folder.name, master=bytes(32), entropy=bytes)
        if (folder / FOLDER).is_dir() and keys.forget(tenant):
            forgotten.append(folder.name)
    return forgotten


def matches(records: Path, record: Record, data: bytes, key_file: Path) -> list[str]:
    """What of the record ``data`` is: ``question`` (the exact body of the request), ``answer`` (the body
    of the answer, or a streamed one's whole text). Under retention ``none`` nothing can be told.

    Raises TextNotKept, TextUnreadable (the tenant's key was deleted).
    """
    if record.request is None and record.answer is None:
        raise TextNotKept
    whole = canonical.encode([data.decode("utf-8", "replace")])
    shown = {"question": (record.request, (data,)), "answer": (record.answer, (data, whole))}
    said = None
    if record.retention is not None:
        key = _keys(records / record.writer, key_file).existing(record.tenant or "")
        if key is None:
            raise TextUnreadable
        said = Kept(Retention.HMAC, b"", key)
    found = []
    for name, (digest, texts) in shown.items():
        of = Digest.of if said is None else said.of_question if name == "question" else said.of_answer
        if digest is not None and any(of(text) == digest for text in texts):
            found.append(name)
    return found


def rewrap(records: Path, key_file: Path) -> dict[str, list[str]]:
    """Writer -> tenants whose keys are wrapped with the first key of ``key_file`` from here on."""
    found = {}
    for folder in _writers(records):
        if (folder / FOLDER).is_dir():
            master = read_secret(key_file).encode()
            found[folder.name] = TenantKeys(
                folder, writer=folder.name, master=master, entropy=os.urandom
            ).rewrap()
    return found


def _keys(folder: Path, key_file: Path) -> TenantKeys:
    master = read_secret(key_file).encode()
    return TenantKeys(folder, writer=folder.name, master=master, entropy=bytes)


def _writers(records: Path) -> list[Path]:
    return sorted(path for path in records.iterdir() if path.is_dir()) if records.is_dir() else []
