"""Whatever happens to a stored trail or a receipt, it is noticed; and the fast encoder is canonical."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from registry import canonical
from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import TenonError
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from router.limits import Cadence
from router.receipts import Receipt, issue, verify_receipt
from router.records import Heads, Record, RecordLog, Trace, genesis, verify_records
from router.records.log import durable
from router.records.segments import Segments
from router.testing import FakeHeads

SIGNER = Signer("router", b"s" * 32)
TRUSTED = {SIGNER.public.id: SIGNER.public}
COUNT = 6


async def _written(folder: Path) -> list[Envelope]:
    cadence, sink = Cadence(segment_bytes=1500), FakeHeads()
    log = RecordLog(
        Segments(folder / "w", writer="w", segment_bytes=1500),
        writer="w",
        clock=ManualClock(),
        cadence=cadence,
    )
    await log.open()
    heads = Heads(log=log, sink=sink, signer=SIGNER, writer="w", clock=ManualClock(), cadence=cadence)
    for i in range(COUNT):
        await durable(log.append("outcome", Trace(id=f"rec-{i}", tenant="bank_a")))
    await heads.submit()
    await log.close()
    return sink.envelopes


def _trail() -> tuple[dict[str, bytes], list[Envelope]]:
    with tempfile.TemporaryDirectory() as name:
        heads = asyncio.run(_written(Path(name)))
        return {file.name: file.read_bytes() for file in Path(name).glob("w/*.jsonl")}, heads


def _faults(files: dict[str, bytes], heads: list[Envelope]) -> list[Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "w"
        folder.mkdir()
        for file, data in files.items():
            (folder / file).write_bytes(data)
        return list(verify_records(Path(name), TRUSTED, heads))


FILES, HEADS = _trail()
NAMES = sorted(FILES)


def test_the_trail_itself_is_sound() -> None:
    assert len(NAMES) >= 3
    assert _faults(FILES, HEADS) == []


@given(name=st.sampled_from(NAMES), at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_changed_byte_is_noticed_in_its_file(name: str, at: float, flip: int) -> None:
    data = bytearray(FILES[name])
    where = int(at * len(data))
    line = data[:where].count(b"\n") + 1
    data[where] ^= flip
    faults = _faults(FILES | {name: bytes(data)}, HEADS)
    # A damaged line end joins two lines, so that the first of them is named.
    assert any(fault.file == f"w/{name}" and fault.line in (line, line + 1) for fault in faults), faults


@given(order=st.permutations(range(COUNT)), keep=st.integers(0, COUNT))
def test_any_lines_missing_or_moved_are_noticed(order: list[int], keep: int) -> None:
    lines = [line for name in NAMES for line in FILES[name].splitlines(keepends=True)]
    chosen = order[:keep]
    faults = _faults({"000000.jsonl": b"".join(lines[i] for i in chosen)}, HEADS)
    assert bool(faults) == (chosen != list(range(COUNT)))


@given(name=st.sampled_from(NAMES))
def test_a_missing_segment_is_noticed(name: str) -> None:
    assert _faults({file: data for file, data in FILES.items() if file != name}, HEADS)


LINE = FILES[NAMES[0]].splitlines()[0]
RECEIPT = issue(LINE, SIGNER).canonical()


@given(at=st.integers(0, len(RECEIPT) - 1), flip=st.integers(1, 255))
def test_any_changed_byte_of_a_receipt_is_noticed(at: int, flip: int) -> None:
    data = bytearray(RECEIPT)
    data[at] ^= flip
    try:
        record = verify_receipt(bytes(data), TRUSTED)
    except TenonError:
        return
    # DSSE lets base64 be spelled with either alphabet, and a key hint be empty: the bytes are the same then.
    assert record.canonical() == LINE
    assert Receipt.parse(bytes(data)).envelope.body() == Receipt.parse(RECEIPT).envelope.body()


DIGESTS = st.binary(max_size=4).map(Digest.of)
TRACES = st.builds(
    Trace,
    id=st.text(max_size=12),
    tenant=st.none() | st.text(max_size=12),
    model=st.none() | st.text(max_size=12),
    policy=st.none() | DIGESTS,
    request=st.none() | DIGESTS,
    answer_of=st.sampled_from([None, "body", "content"]),
    finish_reasons=st.lists(st.text(max_size=4), max_size=3).map(tuple),
    epoch=st.none() | st.integers(0, 1 << 50),
    milliseconds=st.integers(0, 1 << 50),
    engine_version=st.none() | st.text(max_size=4),
    shadow_of=st.none() | st.text(max_size=4),
    started_at=st.none() | st.text(max_size=4),
    surface=st.none() | st.text(max_size=4),
)


@settings(max_examples=300)
@given(trace=TRACES)
def test_the_fast_encoder_is_canonical_and_reads_back(trace: Trace) -> None:
    line = trace.line("outcome", writer="w", seq=0, prev=genesis("w"), at="now")
    record = Record.parse(line)
    assert record.canonical() == line
    assert canonical.encode(canonical.decode(line)) == line
    found = Trace(**{name: getattr(record, name) for name in Trace.__slots__ if name in Record.model_fields})
    assert replace(found) == trace
