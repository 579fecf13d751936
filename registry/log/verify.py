"""Was the log tampered with? Offline, from the stored bytes and the heads that were signed along the way."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from registry.digests import Digest
from registry.errors import InvalidDocument, SignatureInvalid
from registry.log.entries import Entry, Head
from registry.log.merkle import Frontier, leaf_hash
from registry.models import PublicKey
from registry.signing.envelope import Envelope, verify
from registry.signing.types import LOG_HEAD


@dataclass(frozen=True, slots=True)
class Fault:
    where: str
    """``entry 17``, ``entries 17 to 19``, ``head 3 (size 40)``; heads are counted from 1, entries from 0."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify_log(
    entries: Iterable[tuple[int, bytes, bytes]],
    heads: Sequence[Envelope],
    trusted: Mapping[str, PublicKey],
) -> list[Fault]:
    """Every fault: first of the entries, then of the heads; an empty list means intact.

    ``entries``: (index, canonical bytes, stored leaf hash) by ascending index; read once, O(log n) memory.
    Without any head only the entries' own consistency can be checked: whoever can write the whole store
    can rewrite all of it, so keep signed heads elsewhere too.
    """
    audit = _Audit(heads, trusted)
    for index, data, stored in entries:
        audit.read(index, data, stored)
    return audit.close()


class _Audit:
    """One pass over the entries with two trees: of the bytes as they are, and of the stored leaf hashes.

    When an entry and its leaf hash differ, the next signed head tells which of the two was changed.
    """

    def __init__(self, heads: Sequence[Envelope], trusted: Mapping[str, PublicKey]) -> None:
        self._entry_faults: list[tuple[int, str, str]] = []
        self._head_faults: list[Fault] = []
        self._signed: dict[int, list[tuple[str, Digest]]] = {}
        self._actual, self._stored = Frontier(), Frontier()
        self._expected = 0
        self._gap: int | None = None
        """The first index that was not where it belongs: the trees mean nothing from there on."""
        self._undecided: list[int] = []
        """Entries that differ from their leaf hash, since the last head that matched."""
        self._proven = 0
        """Up to here the log is as signed."""
        for position, envelope in enumerate(heads, start=1):
            self._open(position, envelope, trusted)
        self._compare(0)

    def read(self, index: int, data: bytes, stored: bytes) -> None:
        if index != self._expected:
            self._out_of_sequence(index)
        self._expected = max(self._expected, index + 1)
        actual = leaf_hash(data)
        if stored != actual:
            self._undecided.append(index)
        elif fault := _content_fault(index, data):
            self._entry_faults.append((index, f"entry {index}", fault))
        if self._gap is None:
            self._actual.append(actual)
            self._stored.append(stored if len(stored) == len(actual) else bytes(len(actual)))
            self._compare(index + 1)

    def close(self) -> list[Fault]:
        self._differ("its bytes do not match its stored leaf hash")
        for size in sorted(self._signed):
            for where, _ in self._signed[size]:
                if size > self._expected:
                    figures = f"{size} entries were signed, {self._expected} are here"
                    self._head_faults.append(Fault(where, f"the log was cut off behind it: {figures}"))
                elif self._gap is not None and size > self._gap:
                    self._head_faults.append(
                        Fault(where, f"cannot be compared: the log is not complete from entry {self._gap} on")
                    )
        ordered = sorted(self._entry_faults, key=lambda fault: fault[0])
        return [Fault(where, what) for _, where, what in ordered] + self._head_faults

    def _open(self, position: int, envelope: Envelope, trusted: Mapping[str, PublicKey]) -> None:
        try:
            head = Head.parse(verify(envelope, payload_type=LOG_HEAD, trusted=trusted, role="log"))
        except (SignatureInvalid, InvalidDocument) as error:
            self._head_faults.append(Fault(f"head {position}", error.message))
        else:
            where = f"head {position} (size {head.size})"
            self._signed.setdefault(head.size, []).append((where, head.root))

    def _compare(self, size: int) -> None:
        """The heads signed at ``size`` entries with the trees, which hold exactly that many now."""
        if size not in self._signed:
            return
        actual = Digest(f"sha256:{self._actual.root().hex()}")
        stored = Digest(f"sha256:{self._stored.root().hex()}")
        for where, root in self._signed[size]:
            if root == actual:
                self._differ("its stored leaf hash was changed; its bytes are as signed")
            elif root == stored:
                self._differ("its bytes were changed; its leaf hash is as signed")
            else:
                span = _span(self._proven, size) if size > self._proven else "the head itself"
                self._head_faults.append(
                    Fault(where, f"its root {root} is not the log's {actual}: look at {span}")
                )
                continue
            self._proven = size

    def _differ(self, what: str) -> None:
        self._entry_faults += [(index, f"entry {index}", what) for index in self._undecided]
        self._undecided.clear()

    def _out_of_sequence(self, index: int) -> None:
        if index > self._expected:
            where, what = _span(self._expected, index), "missing"
        else:
            where, what = f"entry {index}", "comes twice or out of order"
        self._entry_faults.append((min(index, self._expected), where, what))
        if self._gap is None:
            self._gap = min(index, self._expected)


def _content_fault(index: int, data: bytes) -> str:
    """What is wrong with bytes that do match their leaf hash; empty when nothing is."""
    try:
        entry = Entry.parse(data)
        canonical = entry.canonical()
    except InvalidDocument as error:
        return error.message
    if entry.index != index:
        return f"it says that it is entry {entry.index}"
    if canonical != data:
        return "it is not written as canonical JSON"
    return ""


def _span(start: int, end: int) -> str:
    return f"entry {start}" if end - start == 1 else f"entries {start} to {end - 1}"
