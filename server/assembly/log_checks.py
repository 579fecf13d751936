"""What can be proved about a log from outside: an exported file, and a head that was kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from registry.errors import EntryNotFound, InvalidInput, LogForked
from registry.log.entries import Head
from registry.log.export import Exported, read_lines, verify_export
from registry.log.handovers import KeyHistory
from registry.log.statements import Consistency
from registry.models import PublicKey
from registry.signing.envelope import Envelope
from server.assembly.trust import read_keys
from server.errors import FileUnusable

_PIECE = 1 << 16


def check_export(file: Path, *, trust: Path | None) -> Exported:
    """Raises FileUnusable, LogExportInvalid."""
    trusted = {} if trust is None else read_keys(trust)
    try:
        with file.open("rb") as stream:
            return verify_export(read_lines(iter(lambda: stream.read(_PIECE), b"")), trusted)
    except OSError as error:
        raise FileUnusable(f"cannot read {file}: {error.strerror}") from None


def read_head(file: Path) -> Envelope:
    """As ``tenon log head --json`` printed it. Raises FileUnusable, InvalidDocument."""
    try:
        return Envelope.parse(file.read_bytes())
    except OSError as error:
        raise FileUnusable(f"cannot read {file}: {error.strerror}") from None


class Log(Protocol):
    """What is asked of it is proved, so it may be anybody's."""

    def key_history(self) -> KeyHistory: ...
    def consistency(self, first: int, second: int | None = None) -> Consistency: ...


def check_since(
    log: Log, kept: Envelope, *, trusted: Mapping[str, PublicKey]
) -> tuple[Head, Head, Consistency]:
    """(the kept head, the newest one, the proof that the log only grew between them).

    ``trusted``: with none, the log's own word for its keys. Raises SignatureInvalid, LogForked.
    """
    keys, new = log.key_history().open(trusted)
    old = keys.open(kept)
    if new.size < old.size:
        raise LogForked(f"the log had {old.size} entries when the kept head was signed, and has {new.size}")
    try:
        proof = log.consistency(old.size, new.size)
    except (EntryNotFound, InvalidInput) as error:
        raise LogForked(f"the log cannot show that it continues the kept head: {error.message}") from None
    asked = (proof.first, proof.second) == (old.size, new.size)
    if not asked or (proof.first_root, proof.second_root) != (old.root, new.root) or not proof.holds():
        raise LogForked(f"the log does not continue the head of size {old.size} that was kept")
    return old, new, proof
