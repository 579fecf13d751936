"""Each answer against each thing that must have happened for a bug to touch it; and what cannot be judged."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from packaging.specifiers import SpecifierSet

from registry.errors import InvalidDocument, RecordCorrupt
from router.records.record import Record
from router.records.segments import read_lines, segments_of
from router.records.start import marked
from router.records.verify import RecordFault
from server.exposure.boots import BootStory, Load, Story
from server.exposure.events import EngineEvent, within


@dataclass(frozen=True, slots=True)
class Question:
    event: EngineEvent
    ranges: list[SpecifierSet]
    since: datetime
    until: datetime
    tenant: str | None = None
    slack: timedelta = timedelta(seconds=5)
    """How far the clocks of routers, engines and the registry may be apart."""


@dataclass(frozen=True, slots=True)
class Touched:
    """An answer that the bug could have touched."""

    record: Record
    engine_version: str
    why: str


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Nothing can be said about answers of this writer in this span (or about one record)."""

    writer: str
    start: datetime
    end: datetime
    why: str
    record: str | None = None


@dataclass(slots=True)
class Exposure:
    answers: int = 0
    """Looked at, in the span."""
    touched: list[Touched] = field(default_factory=list)
    unjudged: list[Unjudged] = field(default_factory=list)


def judge(records: Path, story: Story, question: Question, faults: Iterable[RecordFault]) -> Exposure:
    """``faults``: what :func:`router.records.verify_records` found there, heads of the log included."""
    found = Exposure()
    by_writer: dict[str, list[RecordFault]] = {}
    for fault in faults:
        by_writer.setdefault(fault.file.partition("/")[0], []).append(fault)
    loads = {key: boot.loads(story.wanted) for key, boot in story.boots.items()}
    folders = {path.name for path in records.iterdir() if path.is_dir()} if records.is_dir() else set()
    for writer in sorted(folders | by_writer.keys()):
        damaged = {fault.seq for fault in by_writer.get(writer, [])}
        sound: list[tuple[int, datetime]] = []
        for record in _records(records / writer):
            if record.seq in damaged:
                continue
            sound.append((record.seq, datetime.fromisoformat(record.at)))
            _look(record, story, loads, question, found)
        if begun := _pruned(records / writer):
            end = sound[0][1] if sound else question.until
            if end > question.since:
                found.unjudged.append(Unjudged(writer, question.since, min(end, question.until), begun))
        for fault in by_writer.get(writer, []):
            start, end = _around(fault.seq, sound, question)
            if start <= question.until and end >= question.since:
                found.unjudged.append(Unjudged(writer, start, end, str(fault)))
    return found


def _pruned(folder: Path) -> str | None:
    try:
        found = marked(folder)
    except RecordCorrupt:
        return None  # one of the faults
    return f"its records before {found[1].seq} were pruned" if found else None


def _records(folder: Path) -> Iterator[Record]:
    for file in segments_of(folder):
        for line in read_lines(file):
            try:
                yield Record.parse(line.data)
            except InvalidDocument:
                continue  # one of the faults


def _look(
    record: Record,
    story: Story,
    loads: dict[tuple[str, str], list[Load]],
    question: Question,
    found: Exposure,
) -> None:
    if not _is_answer(record) or (question.tenant is not None and record.tenant != question.tenant):
        return
    start, end = _under_way(record)
    if end < question.since or start > question.until:
        return
    found.answers += 1
    boot = story.boots.get((record.engine or "", record.boot or ""))
    if boot is None or record.engine_version not in (None, boot.engine_version):
        what = "the log does not know its engine's boot" if boot is None else "the log says another version"
        found.unjudged.append(Unjudged(record.writer, start, end, what, record.id))
    elif within(boot.engine_version, question.ranges):
        why = _why(record, boot, loads[boot.engine, boot.boot], question)
        if why is not None:
            found.touched.append(Touched(record, boot.engine_version, why))


def _why(record: Record, boot: BootStory, loads: list[Load], question: Question) -> str | None:
    """How the condition could hold; None when it did not."""
    start, end = _under_way(record)
    others = [load for load in loads if load.version != record.version]
    match question.event.condition:
        case "always":
            return f"every answer of vLLM {boot.engine_version}"
        case "adapter_loaded_in_flight":
            # A load can only be ruled out by what lies surely before or after the request.
            near = [
                load
                for load in others
                if load.after <= end + question.slack and load.before >= start - question.slack
            ]
            doing = "loaded while it was under way"
        case "other_adapter_resident":
            near = [load for load in others if load.after <= end + question.slack]
            doing = "held by the engine too"
    if not near:
        return None
    told = [f"{load.version.short}… was {'' if load.certain else 'perhaps '}{doing}" for load in near[:3]]
    more = f", and {len(near) - 3} more" if len(near) > 3 else ""
    return "; ".join(told) + more


def _is_answer(record: Record) -> bool:
    """Something an engine said reached a client (or was kept for comparison, of a shadow copy)."""
    said = record.status == 200 or record.answer_of == "content"
    return record.event == "outcome" and record.engine is not None and said


def _under_way(record: Record) -> tuple[datetime, datetime]:
    end = datetime.fromisoformat(record.at)
    if record.started_at is not None:
        return min(datetime.fromisoformat(record.started_at), end), end
    return end - timedelta(milliseconds=record.milliseconds + 1), end


def _around(
    seq: int | None, sound: list[tuple[int, datetime]], question: Question
) -> tuple[datetime, datetime]:
    """From the last sound record before a damaged one to the first after it; without them, all asked for."""
    if seq is None:
        return question.since, question.until
    before = [at for number, at in sound if number < seq]
    after = [at for number, at in sound if number > seq]
    return (before[-1] if before else question.since), (after[0] if after else question.until)
