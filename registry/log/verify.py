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
    """``entry 17``, ``entries 17 to 19``, ``head 3 (size 40)``."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify_log(
    entries: Iterable[tuple[int, bytes, bytes]],
    heads: Sequence[Envelope],
    trusted: Mapping[str, PublicKey],
) -> list[Fault]:
    """Every fault, in the order of the log; an empty list means intact.

    ``entries``: (index, canonical bytes, stored leaf hash) by ascending index; read once, O(log n) memory.
    Without any head only the entries' own consistency can be checked: whoever can rewrite the whole store
    can rewrite all of it, so keep signed heads elsewhere too.
    """
    signed, faults = _open_heads(heads, trusted)
    tree = _Trees()
    later: list[Fault] = []
    last_good = 0
    for size in sorted(size for size in signed if size == 0):
        later += _compare(tree, signed[size], last_good=0)
    for index, data, stored in entries:
        if index != tree.expected:
            faults.append(_sequence_fault(index, tree.expected))
            tree.whole = False
        tree.expected = max(tree.expected, index + 1)
        fault = _check_entry(index, data, stored)
        if fault:
            faults.append(fault)
        tree.add(data, stored)
        if tree.whole and index + 1 in signed:
            mismatches = _compare(tree, signed[index + 1], last_good=last_good)
            later += mismatches
            if not mismatches:
                last_good = index + 1
    for size in sorted(signed):
        for where, _ in signed[size]:
            if size > tree.expected:
                missing = f"{size} entries were signed and only {tree.expected} are here"
                faults.append(Fault(where, f"the log was cut off: {missing}"))
            elif not tree.whole and size > tree.broken_at:
                later.append(Fault(where, "cannot be compared: entries before it are missing or out of order"))
    return faults + later
