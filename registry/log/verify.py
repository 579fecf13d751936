"""Was the log tampered with? Offline, from the stored bytes and the heads that were signed along the way."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from registry.digests import Digest
from registry.errors import InvalidDocument, SignatureInvalid
from registry.log.entries import Entry, Head
from registry.log.key_chain import KeyChain
from registry.log.merkle import SIZE, Frontier, leaf_hash
from registry.log.tips import Tips
from registry.models import PublicKey
from registry.signing.envelope import Envelope


@dataclass(frozen=True, slots=True)
class Fault:
    where: str
    """``entry 17``, ``entries 17 to 19``, ``head 3 (size 40)``; heads are counted from 1, entries from 0."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify_log(
    entries: Iterable[tuple[int, bytes, bytes]],
    heads: Iterable[Envelope],
    trusted: Mapping[str, PublicKey],
) -> list[Fault]:
    """Every fault of a log whose key was never rotated; an empty list means intact.

    ``entries``: (index, canonical bytes, stored leaf hash) by ascending index; ``heads``: by ascending size.
    Without any head only the entries' own consistency can be checked: whoever can write the whole store can
    rewrite all of it, so keep signed heads elsewhere too.
    """
    reading = Reading(heads, KeyChain((), trusted))
    for index, data, stored in entries:
        reading.read(index, data, stored)
        reading.compare()
    return reading.close()


class Reading:
    """One pass over the entries with two trees: of the bytes as they are, and of the stored leaf hashes.

    When an entry and its leaf hash differ, the next signed head tells which of the two was changed. Nothing
    is kept of what was read but faults.
    """

    def __init__(self, heads: Iterable[Envelope], keys: KeyChain, *, tips: Tips | None = None) -> None:
        """``tips``: fed by the caller, who knows whose an entry is, before it is read here."""
        self._entry_faults: list[tuple[int, str, str]] = []
        self._head_faults: list[Fault] = []
        self._keys = keys
        self._heads = self._opened(heads)
        self._next = next(self._heads, None)
        self._tips = tips
        self._actual, self._stored = Frontier(), Frontier()
        self._at = ""
        self.completed: tuple[bytes, ...] = ()
        """Subtrees that end with the entry read last."""
        self._expected = 0
        self._gap: int | None = None
        """The first index that was not where it belongs: the trees mean nothing from there on."""
        self._undecided: list[int] = []
        """Entries that differ from their leaf hash, since the last head that matched."""
        self._proven = 0
        """Up to here the log is as signed."""
        self._unvouched = {rotation.index + 1 for rotation in keys.rotations}
        """Sizes at which a head by both keys has still to come."""
        self.compare()

    @property
    def trees(self) -> tuple[Frontier, Frontier]:
        """(over the bytes, over the stored leaf hashes)"""
        return self._actual, self._stored

    @property
    def size(self) -> int:
        """Entries so far, missing ones included."""
        return self._expected

    def read(self, index: int, data: bytes, stored: bytes) -> Entry | None:
        """The entry, if it can be read. Call :meth:`compare` before the next one."""
        if index != self._expected:
            self._out_of_sequence(index)
        self._expected = max(self._expected, index + 1)
        actual = leaf_hash(data)
        entry, fault = _content(index, data)
        if stored != actual:
            self._undecided.append(index)
        elif fault:
            self._entry_faults.append((index, f"entry {index}", fault))
        elif entry is not None and entry.at < self._at:
            self._entry_faults.append((index, f"entry {index}", "it is older than the entry before it"))
        if entry is not None:
            self._at = entry.at
        if self._gap is None:
            self.completed = self._actual.append(actual)
            self._stored.append(stored if len(stored) == SIZE else bytes(SIZE))
        return entry

    def compare(self) -> None:
        """The heads signed over what was read so far with the trees."""
        size = self._actual.size
        while self._gap is None and self._next is not None and self._next[1].size <= size:
            where, head = self._next
            if head.size < size:
                self._head_faults.append(Fault(where, "it comes after a head of a larger size"))
            else:
                self._check(where, head)
            self._next = next(self._heads, None)

    def close(self) -> list[Fault]:
        while self._next is not None:
            where, head = self._next
            self._behind(where, head)
            self._next = next(self._heads, None)
        self._differ("its bytes do not match its stored leaf hash")
        for rotation in self._keys.rotations:
            if rotation.index + 1 in self._unvouched:
                self._head_faults.append(
                    Fault(f"entry {rotation.index}", "no head by both keys vouches for the new log key")
                )
        ordered = sorted(self._entry_faults, key=lambda fault: fault[0])
        return [Fault(where, what) for _, where, what in ordered] + self._head_faults

    def _opened(self, heads: Iterable[Envelope]) -> Iterator[tuple[str, Head]]:
        for position, envelope in enumerate(heads, start=1):
            try:
                head = self._keys.open(envelope)
            except (SignatureInvalid, InvalidDocument) as error:
                self._head_faults.append(Fault(f"head {position}", error.message))
            else:
                yield f"head {position} (size {head.size})", head

    def _check(self, where: str, head: Head) -> None:
        actual = Digest(f"sha256:{self._actual.root().hex()}")
        if head.root == actual:
            self._differ("its stored leaf hash was changed; its bytes are as signed")
        elif head.root == Digest(f"sha256:{self._stored.root().hex()}"):
            self._differ("its bytes were changed; its leaf hash is as signed")
        else:
            span = _span(self._proven, head.size) if head.size > self._proven else "the head itself"
            what = f"its root {head.root} is not the log's {actual}: look at {span}"
            self._head_faults.append(Fault(where, what))
            return
        self._proven = head.size
        self._unvouched.discard(head.size)
        if self._tips is None or head.tenants is None or self._entry_faults:
            return
        if head.tenants != self._tips.root():
            self._head_faults.append(Fault(where, "what it says of the tenants' entries is not so"))

    def _behind(self, where: str, head: Head) -> None:
        if head.size > self._expected:
            figures = f"{head.size} entries were signed, {self._expected} are here"
            self._head_faults.append(Fault(where, f"the log was cut off behind it: {figures}"))
        elif self._gap is not None and head.size > self._gap:
            what = f"cannot be compared: the log is not complete from entry {self._gap} on"
            self._head_faults.append(Fault(where, what))

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


def _content(index: int, data: bytes) -> tuple[Entry | None, str]:
    """(the entry if it can be read, what is wrong with bytes that do match their leaf hash)"""
    try:
        entry = Entry.parse(data)
        canonical = entry.canonical()
    except InvalidDocument as error:
        return None, error.message
    if entry.index != index:
        return entry, f"it says that it is entry {entry.index}"
    return entry, "" if canonical == data else "it is not written as canonical JSON"


def _span(start: int, end: int) -> str:
    return f"entry {start}" if end - start == 1 else f"entries {start} to {end - 1}"
