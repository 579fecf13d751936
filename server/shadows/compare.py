"""compare: a version in the shadow beside the one that answered, from the records of both."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.names import AdapterName
from router.records.record import Record
from router.records.segments import read_lines, segments_of

QUANTILES = (0.5, 0.95, 0.99)
_SHADOW = b'"shadow_of":"'


@dataclass(slots=True)
class Side:
    """What one of the two did."""

    milliseconds: list[int] = field(default_factory=list)
    """Of answers; a refusal that came at once says nothing about speed."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """Code -> how often."""

    def add(self, record: Record) -> None:
        if record.status == 200:
            self.milliseconds.append(record.milliseconds)
        else:
            code = record.code or str(record.status)
            self.errors[code] = self.errors.get(code, 0) + 1
        self.prompt_tokens += record.prompt_tokens or 0
        self.completion_tokens += record.completion_tokens or 0

    def quantile(self, share: float) -> int | None:
        """By nearest rank: a latency that somebody had."""
        if not self.milliseconds:
            return None
        found = sorted(self.milliseconds)
        return found[max(0, math.ceil(share * len(found)) - 1)]


@dataclass(slots=True)
class Comparison:
    """All pairs of one version and one shadow."""

    alias: str
    version: Digest
    """That answered."""
    shadow: Digest
    pairs: int = 0
    agreed: int = 0
    differed: int = 0
    primaries: Side = field(default_factory=Side)
    shadows: Side = field(default_factory=Side)

    @property
    def agreement(self) -> float | None:
        """Of the pairs in which both answered."""
        judged = self.agreed + self.differed
        return self.agreed / judged if judged else None

    def add(self, primary: Record, shadow: Record) -> None:
        self.pairs += 1
        if shadow.agrees is not None:
            self.agreed += shadow.agrees
            self.differed += not shadow.agrees
        self.primaries.add(primary)
        self.shadows.add(shadow)


@dataclass(frozen=True, slots=True)
class Compared:
    comparisons: tuple[Comparison, ...]
    """By alias and versions."""
    unpaired: int
    """Shadows whose primary's record is not here."""


def compare(
    records: Path, name: AdapterName, *, alias: str | None = None, since: datetime | None = None
) -> Compared:
    """``records``: folders of routers. A line that is no record is ``tenon log verify``'s to tell."""
    copies = [record for record in _records(records, shadows=True) if _wanted(record, name, alias, since)]
    asked = {record.shadow_of for record in copies}
    primaries = {record.id: record for record in _records(records, shadows=False, ids=asked)}
    found: dict[tuple[str, Digest, Digest], Comparison] = {}
    unpaired = 0
    for copy in copies:
        primary = primaries.get(copy.shadow_of or "")
        if primary is None or primary.version is None or copy.version is None:
            unpaired += 1
            continue
        key = (copy.alias or "", primary.version, copy.version)
        found.setdefault(key, Comparison(*key)).add(primary, copy)
    return Compared(tuple(found[key] for key in sorted(found)), unpaired)


def known(records: Path, name: AdapterName, alias: str | None = None) -> bool:
    """Whether any request, copied or not, was of this name."""
    every = (record for copied in (False, True) for record in _records(records, shadows=copied))
    return any(_wanted(record, name, alias, None) for record in every)


def _wanted(record: Record, name: AdapterName, alias: str | None, since: datetime | None) -> bool:
    return (
        (record.tenant, record.adapter) == (name.tenant, name.adapter)
        and alias in (None, record.alias)
        and (since is None or datetime.fromisoformat(record.started_at or record.at) >= since)
    )


def _records(records: Path, *, shadows: bool, ids: Iterable[str | None] | None = None) -> Iterator[Record]:
    """Outcomes only. Looked for in their bytes first: parsing takes twenty times as long."""
    wanted = None if ids is None else {identity.encode() for identity in ids if identity}
    for folder in _writers(records):
        for segment in segments_of(folder):
            for line in read_lines(segment):
                if (_SHADOW in line.data) != shadows or b'"event":"outcome"' not in line.data:
                    continue
                if wanted is not None and _id(line.data) not in wanted:
                    continue
                try:
                    yield Record.parse(line.data)
                except InvalidDocument:
                    continue


def _id(line: bytes) -> bytes:
    start = line.find(b'"id":"') + 6
    return line[start : line.find(b'"', start)]


def _writers(records: Path) -> Sequence[Path]:
    return sorted(path for path in records.iterdir() if path.is_dir()) if records.is_dir() else ()
