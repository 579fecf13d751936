"""A registry's log read from afar, and proved: what was shown is all that its signed head covers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from registry.catalog.projection import RECORDS_HEAD
from registry.errors import LogForked, RecordCorrupt
from registry.log.entries import Entry
from registry.log.merkle import Frontier, leaf_hash
from registry.models import PublicKey, RecordHead
from registry.signing.envelope import Envelope
from router.records.record import Record
from router.records.segments import read_lines, segments_of
from router.records.start import marked
from router.records.unfinished import unfinished
from router.records.verify import RecordFault, verify_records
from server.assembly.place import Catalog
from server.errors import FileUnusable

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Checked:
    """A folder of records against the heads of a log."""

    faults: tuple[RecordFault, ...]
    records: int
    unsealed: int
    unfinished: tuple[Record, ...]
    elsewhere: tuple[str, ...]
    """Writers that the log has heads of and that are not in the folder: their records were not looked at."""
    begins: Mapping[str, int]
    """Writer -> seq of the first record that is here, of those whose older ones were pruned."""


def proved_entries(catalog: Catalog, trusted: Mapping[str, PublicKey], take: Callable[[Entry], None]) -> int:
    """Give each entry to ``take``, from the first on; how many the newest head covers.

    ``trusted``: log keys; with none, the log's own word for them. Raises SignatureInvalid, and LogForked when
    what was shown is not what the head signs: then nothing of it can be used.
    """
    _, head = catalog.key_history().open(trusted)
    tree = Frontier()
    for entry in _entries(catalog, head.size):
        tree.append(leaf_hash(entry.canonical()))
        take(entry)
    if tree.size != head.size or tree.root().hex() != head.root.hex:
        raise LogForked(f"the entries that were shown are not the {head.size} that the log's head signs")
    return head.size


def _entries(catalog: Catalog, size: int) -> Iterator[Entry]:
    start = 0
    while start < size and (page := catalog.entries(start, min(_PAGE, size - start))):
        yield from page
        start = page[-1].index + 1


def record_heads(entries: Iterable[Entry]) -> list[Envelope]:
    return [Envelope.build(entry.body["envelope"]) for entry in entries if entry.kind == RECORDS_HEAD]


def check_folder(folder: Path, trusted: Mapping[str, PublicKey], heads: Iterable[Envelope]) -> Checked:
    """The writers in ``folder``, such as one router's own volume. Raises FileUnusable."""
    here = set(writers(folder))
    covered: dict[str, int] = {}
    chosen = []
    for envelope in heads:
        head = RecordHead.parse(envelope.body())
        covered[head.writer] = max(covered.get(head.writer, 0), head.seq + 1)
        if head.writer in here:
            chosen.append(envelope)
    counts, begins = {name: _lines(folder / name) for name in here}, beginnings(folder, here)
    return Checked(
        tuple(verify_records(folder, trusted, chosen)),
        records=sum(counts.values()),
        unsealed=sum(
            max(0, begins.get(name, 0) + count - covered.get(name, 0)) for name, count in counts.items()
        ),
        unfinished=tuple(unfinished(folder)),
        elsewhere=tuple(sorted(covered.keys() - here)),
        begins=begins,
    )


def beginnings(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Of the writers in ``folder`` whose oldest records were pruned, as their folders say."""
    found = {}
    for name in sorted(names):
        with suppress(RecordCorrupt):  # a fault of its own
            if (start := marked(folder / name)) is not None:
                found[name] = start[1].seq
    return found


def writers(folder: Path) -> list[str]:
    """Raises FileUnusable."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise FileUnusable(f"the records in {folder} cannot be read: {error.strerror}") from None


def _lines(folder: Path) -> int:
    return sum(1 for path in segments_of(folder) for _ in read_lines(path))
