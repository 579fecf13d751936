import dataclasses

import pytest

from registry.canonical import encode
from registry.digests import Digest
from registry.log import merkle
from registry.log.entries import Entry, Head
from registry.log.verify import Fault, verify_log
from registry.signing import types
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer

AT = "2026-01-01T00:00:00.000000Z"
Line = tuple[int, bytes, bytes]


@dataclasses.dataclass
class Log:
    """Twenty entries, signed at sizes 5, 10 and 20."""

    signer: Signer
    lines: list[Line]
    heads: list[Envelope]

    def faults(self) -> list[str]:
        trusted = {self.signer.public.id: self.signer.public}
        return [str(fault) for fault in verify_log(iter(self.lines), self.heads, trusted)]

    def head(self, size: int) -> Envelope:
        root = Digest("sha256:" + merkle.root([leaf for _, _, leaf in self.lines[:size]]).hex())
        return self.signer.sign(types.LOG_HEAD, Head(size=size, root=root, at=AT).canonical())


def line(index: int, **body: object) -> Line:
    data = Entry(
        index=index, at=AT, actor="system", kind="alias.move", subject="a/b:live", body=body
    ).canonical()
    return index, data, merkle.leaf_hash(data)


@pytest.fixture
def log() -> Log:
    made = Log(Signer.generate("log"), [line(index, epoch=index) for index in range(20)], [])
    made.heads = [made.head(size) for size in (5, 10, 20)]
    return made


def test_an_intact_log_has_no_faults(log: Log) -> None:
    assert log.faults() == []
    log.heads.insert(0, log.head(0))
    assert log.faults() == []


def test_an_empty_log() -> None:
    assert verify_log([], [], {}) == []


def test_one_changed_byte_names_its_entry_and_nothing_else(log: Log) -> None:
    index, data, leaf = log.lines[17]
    log.lines[17] = (index, data.replace(b"17", b"71", 1), leaf)
    assert log.faults() == ["entry 17: its bytes were changed; its leaf hash is as signed"]


def test_a_changed_leaf_hash_is_told_from_changed_bytes(log: Log) -> None:
    index, data, leaf = log.lines[3]
    log.lines[3] = (index, data, bytes(32))
    assert log.faults() == ["entry 3: its stored leaf hash was changed; its bytes are as signed"]
    log.lines[3] = (index, data, leaf[:31])
    assert log.faults() == ["entry 3: its stored leaf hash was changed; its bytes are as signed"]


def test_behind_the_last_head_nobody_can_say_which_of_the_two(log: Log) -> None:
    log.heads.pop()
    log.lines[17] = (17, log.lines[16][1], log.lines[17][2])
    assert log.faults() == ["entry 17: its bytes do not match its stored leaf hash"]


def test_a_rewritten_entry_is_narrowed_down_by_the_heads(log: Log) -> None:
    log.lines[7] = line(7, epoch=700)
    first, second = log.faults()
    assert first.startswith("head 2 (size 10): its root ")
    assert first.endswith(": look at entries 5 to 9")
    assert second.startswith("head 3 (size 20): its root ")


def test_a_missing_entry(log: Log) -> None:
    del log.lines[12]
    assert log.faults() == [
        "entry 12: missing",
        "head 3 (size 20): cannot be compared: the log is not complete from entry 12 on",
    ]
    del log.lines[12:14]
    assert log.faults()[0] == "entries 12 to 14: missing"


def test_the_first_entry_missing(log: Log) -> None:
    del log.lines[0]
    assert log.faults()[0] == "entry 0: missing"
    assert len(log.faults()) == 4


def test_an_entry_that_comes_twice(log: Log) -> None:
    log.lines.insert(8, log.lines[7])
    assert "entry 7: comes twice or out of order" in log.faults()


def test_a_log_that_was_cut_off_below_a_signed_head(log: Log) -> None:
    del log.lines[18:]
    assert log.faults() == [
        "head 3 (size 20): the log was cut off behind it: 20 entries were signed, 18 are here"
    ]


def test_everything_gone(log: Log) -> None:
    log.lines.clear()
    assert len(log.faults()) == 3


def test_a_head_that_nobody_trusted_signed(log: Log) -> None:
    stranger = Signer.generate("log")
    log.heads[1] = stranger.sign(types.LOG_HEAD, log.heads[1].body())
    (fault,) = log.faults()
    assert fault.startswith("head 2: no valid signature")


def test_heads_need_a_trusted_key(log: Log) -> None:
    faults = verify_log(log.lines, log.heads, {})
    assert [fault.where for fault in faults] == ["head 1", "head 2", "head 3"]


def test_a_signed_head_that_is_not_a_head(log: Log) -> None:
    log.heads.append(log.signer.sign(types.LOG_HEAD, b'{"size":20}'))
    (fault,) = log.faults()
    assert fault.startswith("head 4: not a valid Head")


def test_a_head_that_lies_about_a_log_that_another_head_proves(log: Log) -> None:
    lie = Head(size=10, root=Digest.of(b"another history"), at=AT)
    forged = log.signer.sign(types.LOG_HEAD, lie.canonical())
    log.heads.insert(2, forged)
    (fault,) = log.faults()
    assert fault.startswith("head 3 (size 10): ")
    assert fault.endswith("look at the head itself")
    log.heads = [*log.heads[:2], log.heads[3], forged]
    assert log.faults() == ["head 4 (size 10): it comes after a head of a larger size"]


def test_time_runs_forward(log: Log) -> None:
    log.heads.clear()
    data = log.lines[9][1].replace(b"2026-01-01T00", b"2025-12-31T23")
    log.lines[9] = (9, data, merkle.leaf_hash(data))
    assert log.faults() == ["entry 9: it is older than the entry before it"]


def test_entries_must_be_what_they_say(log: Log) -> None:
    log.heads.clear()
    data = log.lines[4][1]
    log.lines[2] = (2, data, merkle.leaf_hash(data))
    spaced = data.replace(b":", b": ", 1)
    log.lines[4] = (4, spaced, merkle.leaf_hash(spaced))
    log.lines[6] = (6, b"{}", merkle.leaf_hash(b"{}"))
    big = data.replace(b'"index":4', b'"index":10').replace(b'"epoch":4', b'"epoch":9007199254740993')
    log.lines[10] = (10, big, merkle.leaf_hash(big))
    loose = encode({"index": 8})
    log.lines[8] = (8, loose, merkle.leaf_hash(loose))
    faults = log.faults()
    assert faults[:2] == [
        "entry 2: it says that it is entry 4",
        "entry 4: it is not written as canonical JSON",
    ]
    assert [fault.split(":")[0] for fault in faults] == [
        "entry 2",
        "entry 4",
        "entry 6",
        "entry 8",
        "entry 10",
    ]


def test_a_fault_reads_as_one_line() -> None:
    assert str(Fault(where="entry 17", what="missing")) == "entry 17: missing"
