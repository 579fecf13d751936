"""One tenant's part of the log as a file that proves itself: JSON lines, checked without anything else.

Line 1 is the :class:`Header`; then come the public facts (who may sign what), then the tenant's entries, each
a :class:`Line`. The format, and what it proves to whom: docs/concepts/log.md. A second implementation, which
shares no code with this one: scripts/verify-log-export.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from pydantic import Field

from registry.canonical import Document
from registry.errors import InvalidDocument, LogExportInvalid, SignatureInvalid
from registry.log.entries import Entry, Head
from registry.log.handovers import Handover, follow
from registry.log.key_chain import LOG_KEY_ROTATED, Rotation
from registry.log.merkle import leaf_hash
from registry.log.proofs import verify_inclusion
from registry.log.statements import raw
from registry.log.tips import Tip
from registry.models import PublicKey
from registry.signing.envelope import Envelope

FACTS: Final = ("signer.trusted", "signer.distrusted", LOG_KEY_ROTATED)
"""Kinds of the platform's entries that tenants see: without them, signatures in their entries mean little."""
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
D = TypeVar("D", bound=Document)
_MAX_LINE: Final = 16 << 20
"""Bytes; the largest entry, a routing of a thousand rules, has some hundred thousand."""


class Header(Document):
    kind: Literal["tenon.log-export/v1"] = "tenon.log-export/v1"
    tenant: str
    head: Envelope
    keys: tuple[PublicKey, ...]
    """Every log key so far, oldest first. For who trusts none of them, the file proves only that it fits
    together."""
    handovers: tuple[Handover, ...]
    tip: str | None
    """Canonical bytes of the tenant's tip; None under a v1 head, which does not commit to it."""
    tip_index: int | None
    tip_proof: tuple[str, ...]
    facts: int = Field(ge=0)
    entries: int = Field(ge=0)


class Line(Document):
    entry: str
    """The canonical bytes, as text: what was hashed."""
    proof: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """What a file was found to prove."""

    tenant: str
    entries: int
    first: str
    """Time of the tenant's first entry."""
    head: Head
    signed_by: tuple[PublicKey, ...]
    trusted: bool
    """The head is signed by a key that was known from elsewhere, or that such a key introduced."""
    complete: bool
    """The head counts exactly these entries for the tenant."""
    faults: tuple[str, ...]

    def proven(self) -> list[str]:
        if self.faults:
            return []
        whom = f"log key {', '.join(key.id for key in self.signed_by)}"
        lines = [f"each of the {self.entries} entries is in the log of {self.head.size} entries"]
        lines += [f"the log's head of {self.head.at} is signed by {whom}"] if self.trusted else []
        lines += [f"these are all entries of {self.tenant} that this head counts"] if self.complete else []
        return lines

    def unproven(self) -> list[str]:
        lines = []
        if not self.trusted:
            lines.append("who signed: give the log key, got on another way, with --trust")
        if not self.complete:
            lines.append("that no entry was left out: the head is of before heads counted them")
        lines.append("that this head is the newest, and the one that others see: compare it with theirs")
        return lines


def verify_export(lines: Iterable[bytes], trusted: Mapping[str, PublicKey]) -> Exported:
    """``trusted``: log keys got on another way; with none, the keys in the file itself are taken.

    Raises LogExportInvalid for what is no such file; every other fault is in the result.
    """
    reading = iter(lines)
    header = _parsed(Header, next(reading, b""), 1)
    try:
        head = Head.parse(header.head.body())
    except (SignatureInvalid, InvalidDocument) as error:
        raise LogExportInvalid(f"line 1: {error.message}") from None
    check = _Check(header, head)
    for number, line in enumerate(reading, start=2):
        check.read(number, _parsed(Line, line, number))
    return check.close(trusted)


class _Check:
    def __init__(self, header: Header, head: Head) -> None:
        self._header = header
        self._head = head
        self._faults: list[str] = []
        self._rotations: list[Rotation] = []
        self._tip = Tip(tenant=header.tenant)
        self._facts = 0
        self._last = -1
        self._first = ""

    def read(self, number: int, line: Line) -> None:
        data = line.entry.encode()
        try:
            entry = Entry.parse(data)
        except InvalidDocument as error:
            self._faults.append(f"line {number}: {error.message}")
            return
        own = self._facts == self._header.facts
        if not own:
            self._facts += 1
            self._last = -1 if self._facts == 1 else self._last
        elif self._tip == Tip(tenant=self._header.tenant):
            self._last, self._first = -1, entry.at
        if entry.index <= self._last:
            self._faults.append(f"line {number}: entry {entry.index} is out of order")
        self._last = entry.index
        leaf = leaf_hash(data)
        proof, root = _nodes(line.proof, number), raw(self._head.root)
        if not verify_inclusion(leaf=leaf, index=entry.index, size=self._head.size, proof=proof, root=root):
            self._faults.append(f"line {number}: entry {entry.index} is not in the log that the head signs")
        if own:
            self._tip = self._tip.after(leaf)
        elif entry.kind not in FACTS:
            self._faults.append(f"line {number}: {entry.kind!r} is no public fact")
        elif entry.kind == LOG_KEY_ROTATED:
            self._rotate(number, entry)

    def close(self, trusted: Mapping[str, PublicKey]) -> Exported:
        if (self._facts, self._tip.entries) != (self._header.facts, self._header.entries):
            expected = f"{self._header.facts} facts and {self._header.entries} entries"
            found = f"{self._facts} and {self._tip.entries}"
            self._faults.append(
                f"the file was cut off or added to: it should hold {expected}, and has {found}"
            )
        signed_by: tuple[PublicKey, ...] = ()
        try:
            signed_by = self._signatures(trusted or {key.id: key for key in self._header.keys})
        except (SignatureInvalid, InvalidDocument) as error:
            self._faults.append(f"the head: {error.message}")
        return Exported(
            tenant=self._header.tenant,
            entries=self._tip.entries,
            first=self._first,
            head=self._head,
            signed_by=signed_by,
            trusted=bool(trusted and signed_by),
            complete=self._complete(),
            faults=tuple(self._faults),
        )

    def _rotate(self, number: int, entry: Entry) -> None:
        try:
            self._rotations.append(Rotation.of(entry))
        except InvalidDocument as error:
            self._faults.append(f"line {number}: {error.message}")

    def _signatures(self, trusted: Mapping[str, PublicKey]) -> tuple[PublicKey, ...]:
        """Raises SignatureInvalid when the head does not follow from ``trusted``."""
        chain = follow(self._rotations, self._header.handovers, self._header.head, trusted)
        ids = {signature.keyid for signature in self._header.head.signatures}
        return tuple(key for key in chain.signers(self._head.size) if key.id in ids)

    def _complete(self) -> bool:
        """Whether the head counts exactly the entries that were read; a tip that does not fit is a fault."""
        head, header = self._head, self._header
        if head.tenants is None or header.tip is None or header.tip_index is None:
            if head.tenants is not None:
                self._faults.append("the head counts entries, and the file does not say how many")
            return False
        tip = header.tip.encode()
        if not verify_inclusion(
            leaf=leaf_hash(tip),
            index=header.tip_index,
            size=head.tenants.size,
            proof=_nodes(header.tip_proof, 1),
            root=raw(head.tenants.root),
        ):
            self._faults.append("the tip is not the one that the head counts")
        elif tip != self._tip.canonical():
            self._faults.append(f"the head counts other entries of {header.tenant} than these")
        else:
            return True
        return False


def read_lines(stream: Iterable[bytes]) -> Iterator[bytes]:
    """From pieces of any size; a line without its end counts, and shows as broken JSON if it was cut."""
    rest = b""
    for piece in stream:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > _MAX_LINE:
            raise LogExportInvalid("a line is longer than any entry")
    if rest:
        yield rest


def _parsed(model: type[D], line: bytes, number: int) -> D:
    try:
        return model.parse(line)
    except InvalidDocument as error:
        raise LogExportInvalid(f"line {number}: {error.message}") from None


def _nodes(texts: Sequence[str], number: int) -> list[bytes]:
    if not all(_HASH.fullmatch(text) for text in texts):
        raise LogExportInvalid(f"line {number}: a hash is 64 lower-case hex digits")
    return [bytes.fromhex(text) for text in texts]
