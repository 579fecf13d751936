"""Is everything as the log says, and the log as it was signed? One pass; memory grows with the state only."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import TypeAlias

from registry.catalog.replay import Replay
from registry.digests import Digest, chunks
from registry.errors import BlobCorrupt, BlobNotFound, TenonError
from registry.log.entries import Entry, Head
from registry.log.key_chain import LOG_KEY_ROTATED, KeyChain, Rotation
from registry.log.merkle import Frontier
from registry.log.tiles import stored
from registry.log.verify import Fault, Reading
from registry.models import PublicKey
from registry.ports import Blobs
from registry.signing.envelope import Envelope
from registry.store.database import scratch
from registry.store.transaction import Transaction

Progress: TypeAlias = Callable[[int, int], None]
"""(entries read, entries in all)"""
_STEP = 1000


def no_progress(done: int, total: int) -> None:
    """Nobody looks on."""


def audit(
    rows: Transaction,
    *,
    trusted: Mapping[str, PublicKey],
    blobs: Blobs | None,
    state: bool = True,
    progress: Progress = no_progress,
) -> list[Fault]:
    """Every fault; an empty list means intact. Without ``state`` the log alone: its entries and heads.

    Only heads by the ``trusted`` log keys count, and by those that hand over to or from them. A key that the
    log itself declares could have been put there by whoever rewrote the log.
    """
    faults = [Fault("database file", line) for line in rows.integrity()]
    heads = _Heads(rows)
    total = rows.log.size()
    with ExitStack() as stack:
        replay = Replay(stack.enter_context(scratch())) if state else None
        keys = key_chain(rows, trusted, faults)
        tips = replay.tips if replay else None
        reading = Reading(stack.enter_context(closing(heads.read())), keys, tips=tips)
        nodes, seals = _Nodes(rows, stack), _Seals(heads.sizes)
        owners = stack.enter_context(closing(rows.log.owners()))
        for index, data, leaf in stack.enter_context(closing(rows.log.raw())):
            _, kept_as = next(owners, (index, None))
            entry = reading.read(index, data, leaf)
            seals.read(index, entry)
            if replay is not None:
                if entry is None:
                    replay.stopped = True  # why, the reading says
                else:
                    replay.read(entry, leaf, kept_as)
            reading.compare()
            nodes.read(reading.completed)
            if index % _STEP == 0:
                progress(index, total)
        progress(total, total)
        found = reading.close()
        faults += heads.faults
        faults += seals.faults
        faults += found
        faults += _uncovered(heads.newest, reading.size)
        faults += _frontier(rows, reading.trees)
        if not found:
            faults += nodes.close()
        if replay is not None:
            faults += replay.faults
            if not replay.stopped:
                faults += [] if found else _tips(rows, replay)
                faults += replay.compare(rows)
        if blobs is not None:  # without a replay nobody knows which are missing
            faults += _blobs(blobs, replay.wanted() if replay and not replay.stopped else {})
    return faults


def key_chain(rows: Transaction, trusted: Mapping[str, PublicKey], faults: list[Fault]) -> KeyChain:
    try:
        return KeyChain([Rotation.of(entry) for entry in rows.log.of_kind(LOG_KEY_ROTATED)], trusted)
    except TenonError as error:
        faults.append(Fault("log keys", error.message))
        return KeyChain((), {})


class _Heads:
    """As they are stored, oldest first."""

    def __init__(self, rows: Transaction) -> None:
        self._rows = rows
        self.faults: list[Fault] = []
        self.newest = 0
        self.sizes: deque[int] = deque()
        """Read so far; whoever looks takes them away."""

    def read(self) -> Generator[Envelope, None, None]:
        for size, text in self._rows.log.head_texts():
            self.newest = size
            self.sizes.append(size)
            try:
                head = Envelope.parse(text)
                declared = Head.parse(head.body()).size
            except TenonError as error:
                self.faults.append(Fault(f"head of size {size}", error.message))
                continue
            if declared != size:
                self.faults.append(Fault(f"head of size {size}", f"it was signed over {declared} entries"))
            yield head


class _Seals:
    """Whether each change still has its head. Nothing else tells: later heads cover its entries too.

    The entries of a change have one time, so where the time changes a change had ended. (Two changes of one
    time, after the clock was set back, look like one.)
    """

    def __init__(self, sizes: deque[int]) -> None:
        """``sizes``: of the heads, at least of those over what was read before the entry that is read."""
        self._sizes = sizes
        self._before: Entry | None = None
        self.faults: list[Fault] = []

    def read(self, index: int, entry: Entry | None) -> None:
        while self._sizes and self._sizes[0] < index:
            self._sizes.popleft()
        before, self._before = self._before, entry
        if before is None or entry is None or before.at == entry.at or before.index != index - 1:
            return
        if not self._sizes or self._sizes[0] != index:
            what = f"missing: the change that ended with entry {index - 1} was signed there"
            self.faults.append(Fault(f"head of size {index}", what))


class _Nodes:
    """The stored levels of the tree beside those that the entries give."""

    def __init__(self, rows: Transaction, stack: ExitStack) -> None:
        """``stack`` closes what is left open here."""
        self._rows = rows
        self._stack = stack
        self._levels: dict[int, Iterator[tuple[int, bytes]]] = {}
        self._fault: Fault | None = None
        self._size = 0

    def read(self, completed: tuple[bytes, ...]) -> None:
        """``completed`` with the next entry."""
        for height, position, node in stored(self._size, completed):
            if height not in self._levels:
                level = closing(self._rows.log.tree.nodes(height))
                self._levels[height] = self._stack.enter_context(level)
            if next(self._levels[height], None) != (position, node) and self._fault is None:
                where = f"node {position} at height {height}"
                self._fault = Fault(where, "proofs are made from it, and it does not belong to the entries")
        self._size += 1

    def close(self) -> list[Fault]:
        """The first one: whatever stands over a wrong node is wrong too."""
        if self._fault is None and any(next(level, None) is not None for level in self._levels.values()):
            self._fault = Fault("nodes", "there are more than the entries give")
        return [self._fault] if self._fault else []


def _uncovered(signed: int, size: int) -> Iterator[Fault]:
    if signed < size:
        last = f"entry {signed}" if signed + 1 == size else f"entries {signed} to {size - 1}"
        yield Fault(last, "no head was signed over it: it was not written by the registry")


def _frontier(rows: Transaction, trees: tuple[Frontier, Frontier]) -> Iterator[Fault]:
    """A fault of its own only if it fits neither tree: one changed entry is one fault, not two."""
    try:
        found = rows.log.frontier()
    except (TenonError, TypeError, ValueError) as error:
        yield Fault("frontier", error.message if isinstance(error, TenonError) else "it cannot be read")
        return
    if all((found.size, found.peaks) != (tree.size, tree.peaks) for tree in trees):
        yield Fault("frontier", "it does not belong to the entries")


def _tips(rows: Transaction, replay: Replay) -> Iterator[Fault]:
    try:
        found, nodes = rows.log.tree.tips(), list(rows.log.tree.tip_nodes())
    except TenonError as error:
        yield Fault("tips", error.message)
        return
    expected = tuple(enumerate(replay.tips.all()))
    wrong = next((one for one, other in zip(expected, found, strict=False) if one != other), None)
    if wrong is not None or len(expected) != len(found):
        name = wrong[1].tenant if wrong else "a tenant"
        yield Fault("tips", f"the count of entries of {name}, or their chain, does not belong to the entries")
    elif nodes != list(replay.tips.nodes()):
        yield Fault("tips", "the tree over them is another one")


def _blobs(blobs: Blobs, wanted: Mapping[Digest, str]) -> Iterator[Fault]:
    """Those that versions need, then all others that lie there."""
    for digest in (*wanted, *(digest for digest in blobs.digests() if digest not in wanted)):
        what = wanted.get(digest, "which no version needs")
        try:
            with blobs.open(digest) as stream:
                for _ in chunks(stream):
                    pass
        except BlobNotFound:
            yield Fault(f"blob {digest}", f"missing: {what}")
        except BlobCorrupt:
            yield Fault(f"blob {digest}", f"its bytes are not those of its digest: {what}")
