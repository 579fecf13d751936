"""Tenant keys, sealed texts and their files, apart from the pipeline."""

import asyncio
import os
from itertools import count
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from registry.digests import Digest
from registry.models import Retention
from router.errors import RecordUnavailable, RetentionUnavailable, TextUnreadable
from router.retention.kept import Kept, keyed_digest
from router.retention.retainer import Retainer
from router.retention.sealed import Text, seal, unseal
from router.retention.tenant_keys import TenantKey, TenantKeys, _derived
from router.retention.texts import TextLog, find, kept

MASTER = b"m" * 32
TEXT = Text(b'{"messages":["my PIN is 1234"]}', "your PIN is 1234, é".encode())
KEY = TenantKey("00" * 8, b"s" * 32, b"m" * 32)


def entropy() -> "Entropy":
    return Entropy()


class Entropy:
    """Different bytes each time, the same in every run."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, size: int) -> bytes:
        return next(self._numbers).to_bytes(size, "big")


def keys(folder: Path, master: bytes = MASTER, writer: str = "router-0") -> TenantKeys:
    return TenantKeys(folder, writer=writer, master=master, entropy=os.urandom)


def test_a_tenant_s_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    assert keys(tmp_path).existing("bank_a") is None
    made = keys(tmp_path).make("bank_a")
    assert keys(tmp_path).make("bank_a") == keys(tmp_path).existing("bank_a") == made
    assert keys(tmp_path).make("bank_b") != made
    assert len({made.seal, made.mac, MASTER}) == 3
    stored = keys(tmp_path).path("bank_a").read_bytes()
    assert made.seal not in stored
    assert keys(tmp_path).path("bank_a").stat().st_mode & 0o777 == 0o600


def test_the_master_key_can_be_changed(tmp_path: Path) -> None:
    new = b"n" * 40
    before = keys(tmp_path).make("bank_a")
    both = new + b"\n" + MASTER
    assert keys(tmp_path, master=both).make("bank_a") == before
    made = keys(tmp_path, master=both).make("bank_b")
    assert keys(tmp_path, master=new).existing("bank_b") == made
    with pytest.raises(RetentionUnavailable):
        keys(tmp_path, master=new).existing("bank_a")
    assert keys(tmp_path, master=both).rewrap() == ["bank_a"]
    assert keys(tmp_path, master=both).rewrap() == []
    assert keys(tmp_path, master=new).existing("bank_a") == before
    with pytest.raises(RetentionUnavailable):
        keys(tmp_path).existing("bank_a")
    with pytest.raises(RetentionUnavailable):
        keys(tmp_path, master=b"x" * 40).rewrap()


def test_a_key_of_several_lines_goes_on_opening(tmp_path: Path) -> None:
    long, short = b"a" * 64 + b"\n" + b"b" * 64, b"a" * 64 + b"\n" + b"b" * 8
    for tenant, text in (("bank_a", long), ("bank_b", short)):
        writer = keys(tmp_path, master=b"z" * 32)
        writer._wraps = [AESGCM(_derived(text, b"wrap"))]  # as it was before a file could name several
        made = writer.make(tenant)
        assert keys(tmp_path, master=text).existing(tenant) == made


def test_a_key_opens_for_its_own_tenant_writer_and_master_only(tmp_path: Path) -> None:
    keys(tmp_path).make("bank_a")
    with pytest.raises(RetentionUnavailable):
        keys(tmp_path, master=bytes(32)).existing("bank_a")
    with pytest.raises(RetentionUnavailable):
        keys(tmp_path, writer="router-1").existing("bank_a")
    keys(tmp_path).path("bank_a").rename(keys(tmp_path).path("bank_b"))
    with pytest.raises(RetentionUnavailable):
        keys(tmp_path).existing("bank_b")
    keys(tmp_path).path("bank_b").write_bytes(b"{")
    with pytest.raises(RetentionUnavailable):
        keys(tmp_path).make("bank_b")  # and never overwritten: texts hang on it
    with pytest.raises(ValueError, match="32 bytes"):
        keys(tmp_path, master=b"short")
    with pytest.raises(Exception, match="tenant"):
        keys(tmp_path).make("../bank_a")


def test_a_forgotten_key_stays_forgotten_and_the_next_is_another(tmp_path: Path) -> None:
    before = keys(tmp_path).make("bank_a")
    assert keys(tmp_path).forget("bank_a")
    assert not keys(tmp_path).forget("bank_a")
    assert keys(tmp_path).existing("bank_a") is None
    after = keys(tmp_path).make("bank_a")
    assert (after.id, after.seal) != (before.id, before.seal)
    with pytest.raises(TextUnreadable):
        unseal(seal("rec-1", "bank_a", before, TEXT, bytes(12)), after)


def test_keyed_digests_are_of_the_data_its_kind_and_the_tenant() -> None:
    asked = keyed_digest(b"m" * 32, "question", b"yes")
    assert asked == Digest(asked) == keyed_digest(b"m" * 32, "question", b"yes")
    others = {
        keyed_digest(b"m" * 32, "answer", b"yes"), keyed_digest(b"n" * 32, "question", b"yes"),
        keyed_digest(b"m" * 32, "question", b"no"), Digest.of(b"yes"),
    }  # fmt: skip
    assert asked not in others
    assert len(others) == 4


def test_what_each_mode_leaves() -> None:
    for mode, key, digests, texts in (
        (Retention.NONE, None, False, False),
        (Retention.HMAC, KEY, True, False),
        (Retention.FULL, KEY, True, True),
    ):
        left = Kept(mode, b"question", key)
        found = (left.of_question(b"question"), left.of_answer(b"answer"))
        assert all(found) == any(found) == digests
        assert (left.question, left.answer) == ((b"question", b"answer") if texts else (b"", b""))


def test_a_sealed_text_opens_for_its_record_and_tenant_only() -> None:
    sealed = seal("rec-1", "bank_a", KEY, TEXT, bytes(12))
    assert unseal(sealed, KEY) == TEXT
    assert b"PIN" not in sealed.canonical()
    for changes in (
        {"id": "rec-2"},
        {"tenant": "bank_b"},
        {"nonce": sealed.nonce[:-4] + "AAAB"},
        {"sealed": "B" + sealed.sealed[1:]},
        {"sealed": "no base64"},
    ):
        with pytest.raises(TextUnreadable):
            unseal(sealed.model_copy(update=changes), KEY)
    for empty in (Text(b"", b""), Text(b"x", b""), Text(b"", b"x")):
        assert unseal(seal("rec-1", "bank_a", KEY, empty, bytes(12)), KEY) == empty


async def write(log: TextLog, *records: str) -> None:
    await asyncio.gather(*[kept(log.append(record, "bank_a", KEY, TEXT)) for record in records])


async def test_texts_are_found_again_across_segments_and_starts(tmp_path: Path) -> None:
    for start in range(3):
        log = TextLog(tmp_path, segment_bytes=600, entropy=entropy())
        await write(log, f"rec-{start}0", f"rec-{start}1")
        await write(log, f"rec-{start}2")
        await log.close()
    files = sorted((tmp_path / "text").iterdir())
    assert len(files) > 2
    for start in range(3):
        for number in range(3):
            (found,) = find(tmp_path, f"rec-{start}{number}")
            assert unseal(found, KEY) == TEXT
    assert list(find(tmp_path, "rec-")) == []
    assert not any(b"PIN" in file.read_bytes() for file in files)


async def test_a_torn_line_is_cut_off_and_hides_nothing(tmp_path: Path) -> None:
    log = TextLog(tmp_path, segment_bytes=10_000, entropy=entropy())
    await write(log, "rec-1", "rec-2")
    await log.close()
    file = tmp_path / "text" / "000000.jsonl"
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in (len(whole) - 1, first + 10, first, 5, 0):
        file.write_bytes(whole[:cut])
        log = TextLog(tmp_path, segment_bytes=10_000, entropy=entropy())
        await write(log, "rec-3")
        await log.close()
        lines = file.read_bytes().splitlines()
        assert [orjson.loads(line)["id"] for line in lines] == [*(["rec-1"] if cut >= first else []), "rec-3"]


async def test_a_failed_write_is_told_and_leaves_no_half_line(tmp_path: Path) -> None:
    faults = [0]

    def sync(descriptor: int) -> None:
        if faults[0]:
            faults[0] -= 1
            raise OSError(28, "No space left on device")

    log = TextLog(tmp_path, segment_bytes=10_000, entropy=entropy(), sync=sync)
    await write(log, "rec-1")
    faults[0] = 1
    with pytest.raises(RecordUnavailable):
        await write(log, "rec-2")
    await write(log, "rec-3")
    await log.close()
    lines = (tmp_path / "text" / "000000.jsonl").read_bytes().splitlines()
    assert {orjson.loads(line)["id"] for line in lines} >= {"rec-1", "rec-3"}
    (found,) = find(tmp_path, "rec-3")
    assert unseal(found, KEY) == TEXT


async def test_first_requests_together_share_one_key(tmp_path: Path) -> None:
    now = [0.0]
    retainer = Retainer(keys(tmp_path), None, ticks=lambda: now[0])
    begun = await asyncio.gather(*[retainer.begin(Retention.HMAC, "bank_a", b"x") for _ in range(8)])
    assert len({one.key for one in begun}) == 1
    keys(tmp_path).forget("bank_a")
    assert (await retainer.begin(Retention.HMAC, "bank_a", b"x")).key == begun[0].key
    now[0] = 6.0  # the file is looked at again
    assert (await retainer.begin(Retention.HMAC, "bank_a", b"x")).key != begun[0].key


async def test_without_a_retention_key_only_policies_that_need_none_are_kept() -> None:
    retainer = Retainer(None, None, ticks=lambda: 0.0)
    assert (await retainer.begin(Retention.NONE, "bank_a", b"x")).key is None
    for mode in (Retention.HMAC, Retention.FULL):
        with pytest.raises(RetentionUnavailable):
            await retainer.begin(mode, "bank_a", b"x")
    await retainer.close()
