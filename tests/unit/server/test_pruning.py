"""Old records off a router's disk: whole segments, vouched for, kept elsewhere, and nothing hidden by it."""

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from registry.blobs.shelf import FilesystemShelf
from registry.clock import ManualClock, stamp
from registry.digests import Digest
from registry.errors import ReceiptInvalid, RecordChainForked, RecordCorrupt
from registry.log.merkle import leaf_hash, root
from registry.models import RecordHead
from registry.shipping import KnownHead, genesis
from registry.signing.keys import Signer
from registry.signing.types import RECORD_HEAD, RECORD_START
from registry.usage import UsageBatch, UsageCounted
from router.limits import Cadence
from router.receipts import issue
from router.records import Heads, RecordFault, RecordLog, Trace, verify_records
from router.records.log import durable
from router.records.segments import Segments, segments_of
from router.records.start import RecordStart, locked, marked
from router.testing import FakeHeads, FakeUsage
from router.usage import UsageReports
from server.api.app import create_app
from server.assembly import place as places
from server.assembly.catalog import initialise, open_catalog, signer
from server.assembly.receipts import prove_receipt, verify_receipt_file
from server.errors import PruningBusy
from server.shipping.prune import Pruned, prune
from server.shipping.ship import Files, ship
from tests.journeys.commands import tenon_here
from tests.support.chains import grow
from tests.support.control import SERVICE_TOKEN, control_world
from tests.support.registries import signer as fixed_signer
from tests.support.remote import serving

KEY = Signer("router", b"r" * 32)
START = datetime(2026, 1, 1, tzinfo=UTC)
LATE = START + timedelta(days=1)


class Volume:
    """A writer's chain, a record a second, with its registry and a place that it is shipped to."""

    def __init__(self, folder: Path) -> None:
        self.records = folder / "records"
        self.folder = self.records / "w"
        self.sink, self.usage, self.clock = FakeHeads(), FakeUsage(), ManualClock(START)
        self.place = Files(FilesystemShelf(folder / "out"), _plain, _newest)
        self.written = 0

    async def open(self) -> tuple[RecordLog, Heads]:
        segments = Segments(self.folder, writer="w", segment_bytes=3000, sync=lambda _: None)
        cadence = Cadence(head_seconds=3600)
        log = RecordLog(segments, writer="w", clock=self.clock, cadence=cadence, key=KEY.public)
        await log.open()
        heads = Heads(log=log, sink=self.sink, signer=KEY, writer="w", clock=self.clock, cadence=cadence)
        await heads.submit()
        return log, heads

    async def put(self, log: RecordLog, count: int) -> None:
        for _ in range(count):
            self.clock.advance(1)
            trace = Trace(id=f"rec-{self.written}", tenant="bank_a", status=200)
            await durable(log.append("outcome", trace))
            self.written += 1

    async def grow(self, count: int, *, more: int = 0, counted: bool = True) -> "Volume":
        """``more``: under no head."""
        log, heads = await self.open()
        for _ in range(2):  # a head begins in the middle of a segment
            await self.put(log, count // 2)
            await heads.submit()
        if counted:
            await UsageReports(self.usage, log, self.folder, writer="w").once()
        await self.put(log, more)
        await log.close()
        return self

    def shipped(self) -> "Volume":
        ship(self.folder, self.place)
        return self

    def prune(self, *, before: datetime = LATE, to: Sequence[Any] | None = None) -> Pruned:
        chosen = [self.place] if to is None else to
        return prune(self.folder, self, chosen, before=before, signer=KEY, clock=self.clock)

    def record_head_known(self, writer: str) -> KnownHead:
        heads = [RecordHead.parse(each.body()) for each in self.sink.envelopes]
        if not heads:
            return KnownHead(writer=writer, seq=-1, digest=genesis(writer))
        return KnownHead(writer=writer, seq=heads[-1].seq, digest=heads[-1].digest)

    def usage_counted(self, writer: str) -> UsageCounted:
        return UsageCounted(writer=writer, seq=max((each.seq for each in self.usage.batches), default=-1))

    def faults(self) -> list[RecordFault]:
        return verify_records(self.records, {KEY.public.id: KEY.public}, self.sink.envelopes)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    @property
    def lines(self) -> list[bytes]:
        return [line for file in segments_of(self.folder) for line in file.read_bytes().splitlines()]


def _plain(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _newest(data: bytes) -> Digest:
    return Digest.of(data.splitlines()[-1])


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


async def test_a_pruned_chain_goes_on(volume: Volume) -> None:
    before = (await volume.grow(30, more=3)).shipped().lines
    done = volume.prune()
    assert done.records > 20
    assert volume.lines == before[done.records :]
    assert (done.begins, volume.faults()) == (done.records, [])
    again = (await volume.grow(30)).shipped()
    assert volume.faults() == []
    assert again.lines[: len(before) - done.records] == before[done.records :]
    assert volume.prune().begins > done.begins
    assert volume.faults() == []
    await volume.grow(2)
    assert volume.faults() == []
    assert volume.usage_counted("w").seq == volume.record_head_known("w").seq
    assert volume.prune(before=START).records == 0


async def test_only_what_is_vouched_for_counted_shipped_and_old_goes(volume: Volume) -> None:
    await volume.grow(20, more=12)
    assert volume.prune().records == 0  # shipped nowhere
    volume.shipped()
    half = Files(FilesystemShelf(volume.records.parent / "other"), _plain, _newest)
    half.add("w", 0, volume.lines[:8])
    assert volume.prune(before=START + timedelta(seconds=2)).records == 0
    kept = volume.usage.batches
    volume.usage.batches = []
    assert volume.prune().records == 0
    volume.usage.batches = kept
    assert 0 < volume.prune(to=[volume.place, half]).begins <= 8
    assert 8 < volume.prune(before=START + timedelta(seconds=15)).begins <= 15
    assert 15 < volume.prune(to=[]).begins <= 20  # --unshipped, and still no further than the head
    assert volume.faults() == []


async def test_the_newest_segment_stays(volume: Volume) -> None:
    (await volume.grow(30)).shipped()
    volume.prune(to=[])
    assert len(volume.files) == 1
    assert volume.prune().records == 0
    assert len(volume.files) == 1


@pytest.mark.parametrize("step", range(14))
async def test_killed_at_any_step_it_is_run_again(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    before = (await volume.grow(30)).shipped().lines
    steps = 0

    def falling(real: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == step + 1:
                raise KeyboardInterrupt
            return real(*args, **named)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((os, "fsync"), (os, "open"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, falling(getattr(owner, name)))
        try:
            volume.prune()
            assert steps <= step
        except KeyboardInterrupt:
            pass
    assert volume.faults() == []
    assert before[len(before) - len(volume.lines) :] == volume.lines
    log, _ = await volume.open()
    assert log.fault is None
    await log.close()
    volume.prune()
    assert len(volume.files) == 1
    assert volume.faults() == []


async def test_a_chain_that_does_not_fit_is_left_alone(volume: Volume, tmp_path: Path) -> None:
    other = Volume(tmp_path / "b")
    other.clock.advance(1)
    await other.grow(20)
    (await volume.grow(30)).shipped()
    files = {file: file.read_bytes() for file in volume.files}
    with pytest.raises(RecordChainForked):
        volume.prune(to=[other.shipped().place])
    for file, data in files.items():  # whichever segment is damaged, under the head, the old ones stay
        file.write_bytes(data.replace(b"bank_a", b"bank_b", 1))
        with pytest.raises((RecordCorrupt, RecordChainForked)):
            volume.prune(to=[])
        file.write_bytes(data)
    assert {file: file.read_bytes() for file in volume.files} == files
    assert marked(volume.folder) is None


async def test_a_forged_beginning_hides_nothing(volume: Volume) -> None:
    """Whoever has the volume, and not the router's key."""
    (await volume.grow(40)).shipped()
    assert 0 < volume.prune(before=START + timedelta(seconds=20)).begins <= 20
    kept = (volume.folder / "start.json").read_bytes()
    files = volume.files
    gone = files[0].read_bytes().splitlines()
    said = marked(volume.folder)
    assert said is not None
    more = said[1].model_copy(
        update={
            "segment": said[1].segment + 1,
            "seq": said[1].seq + len(gone),
            "after": Digest.of(gone[-1]),
        }
    )
    files[0].unlink()
    assert "an earlier segment is missing" in str(volume.faults())
    stranger = Signer("router", b"s" * 32)
    for signed in (stranger.sign(RECORD_START, more.canonical()), KEY.sign(RECORD_HEAD, more.canonical())):
        (volume.folder / "start.json").write_bytes(signed.canonical())
        assert "not said by a router" in str(volume.faults())
    for data in (b"", b"{}", kept[:-9]):
        (volume.folder / "start.json").write_bytes(data)
        assert "start.json" in str(volume.faults())
    (volume.folder / "start.json").unlink()
    assert volume.faults()


@pytest.mark.parametrize(
    "lie",
    [{"after": Digest.of(b"other")}, {"seq": 1}, {"segment": 1}, {"writer": "v"}, {"seq": 99, "segment": 99}],
)
async def test_a_beginning_that_no_head_covers_is_a_fault(volume: Volume, lie: dict[str, Any]) -> None:
    """Even with the router's key."""
    (await volume.grow(40)).shipped().prune(before=START + timedelta(seconds=20))
    assert volume.faults() == []
    said = marked(volume.folder)
    assert said is not None
    forged = said[1].model_copy(update=lie)
    (volume.folder / "start.json").write_bytes(KEY.sign(RECORD_START, forged.canonical()).canonical())
    assert volume.faults()


async def test_beside_a_running_router(volume: Volume) -> None:
    (await volume.grow(30)).shipped()
    log, heads = await volume.open()
    usage = UsageReports(volume.usage, log, volume.folder, writer="w", sealed=lambda: heads.sealed)
    await volume.put(log, 5)
    assert await log.read("rec-0", "bank_a") is not None
    assert volume.prune().records > 20
    assert await log.read("rec-0", "bank_a") is None
    await volume.put(log, 20)
    assert await log.read("rec-54", "bank_a") is not None
    await heads.submit()
    await usage.once()
    assert (heads.refused, volume.faults()) == (False, [])
    assert volume.usage_counted("w").seq == 54
    volume.shipped().prune()
    await log.close()
    assert volume.faults() == []


async def test_a_registry_put_back_behind_the_beginning_is_told(volume: Volume) -> None:
    (await volume.grow(40)).shipped()
    volume.prune(before=START + timedelta(seconds=35))
    volume.sink.envelopes = volume.sink.envelopes[:1]
    log, heads = await volume.open()
    assert heads.refused
    assert "were pruned" in str(log.fault)
    await log.close()


async def test_a_beginning_right_after_the_newest_head(volume: Volume) -> None:
    """All that is left is under no head yet; and then nothing is left to write about but what follows."""
    log, heads = await volume.open()
    while len(volume.files) < 4:
        await heads.submit()
        await volume.put(log, 1)
    await UsageReports(volume.usage, log, volume.folder, writer="w", sealed=lambda: heads.sealed).once()
    await log.close()
    done = volume.shipped().prune()
    assert done.begins == volume.record_head_known("w").seq + 1
    assert volume.faults() == []
    log, heads = await volume.open()
    assert not heads.refused
    assert heads.unsent == 0
    await log.close()
    assert volume.faults() == []
    whole = volume.sink.envelopes
    volume.sink.envelopes = whole[:-2]
    assert "no signed head covers" in str(volume.faults())
    last = RecordHead.parse(whole[-2].body())
    assert last.seq == done.begins - 1
    other = last.model_copy(update={"digest": Digest.of(b"other")})
    volume.sink.envelopes = [KEY.sign(RECORD_HEAD, other.canonical())]
    log, heads = await volume.open()
    assert heads.refused
    assert "is not the one that the registry knows" in str(log.fault)
    await log.close()


async def test_the_beginning_is_on_disk_before_anything_goes(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    (await volume.grow(30)).shipped()
    seen = []

    def watched(name: str, real: Any) -> Any:
        def call(*args: Any) -> Any:
            seen.append(name)
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, watched(name, getattr(owner, name)))
        volume.prune()
    assert seen[: seen.index("unlink")] == ["fsync", "replace", "fsync"]


async def test_on_a_full_disk_no_new_file_is_needed(volume: Volume) -> None:
    (await volume.grow(30)).shipped()
    reserved = (volume.folder / "start.json.part").stat()
    assert reserved.st_blocks * 512 >= 4096
    names = {file.name for file in volume.folder.iterdir()}
    volume.prune()
    assert (volume.folder / "start.json").stat().st_ino == reserved.st_ino
    assert {file.name for file in volume.folder.iterdir()} - names == {"start.json"}
    assert (volume.folder / "start.json.part").stat().st_size == 4096


async def test_texts_go_with_their_records(volume: Volume) -> None:
    (await volume.grow(30)).shipped()
    texts = volume.folder / "text"
    texts.mkdir()
    first = START.timestamp()
    for number, moment in enumerate((first - 7200, first - 1800, first + 9, first - 9000)):
        file = texts / f"{number:06d}.jsonl"
        file.write_bytes(b"x" * 100)
        os.utime(file, (moment, moment))
    assert volume.prune(before=START).records == 0
    assert len(list(texts.iterdir())) == 4
    done = volume.prune()
    assert [file.name for file in sorted(texts.iterdir())] == ["000001.jsonl", "000002.jsonl", "000003.jsonl"]
    assert done.freed > 100
    with locked(volume.folder), pytest.raises(PruningBusy):
        volume.prune()


async def test_a_place_without_the_pruned_records_is_told(volume: Volume, tmp_path: Path) -> None:
    (await volume.grow(30)).shipped().prune()
    with pytest.raises(RecordCorrupt, match="were pruned"):
        ship(volume.folder, Files(FilesystemShelf(tmp_path / "new"), _plain, _newest))
    await volume.grow(10)
    assert ship(volume.folder, volume.place) == 10


def test_where_everything_before_the_beginning_was_shipped_the_next_batch_follows(volume: Volume) -> None:
    asyncio.run(volume.grow(30))
    lines = volume.lines
    edge = len(volume.files[0].read_bytes().splitlines())
    volume.place.add("w", 0, lines[:edge])
    assert volume.prune().begins == edge
    assert ship(volume.folder, volume.place) == 30 - edge
    assert volume.faults() == []


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A router's container: its volume, its key, and the control plane behind a URL."""
    (tmp_path / "control").mkdir()
    with control_world(tmp_path / "control") as bench, serving(create_app(bench.control)) as url:
        secret = bench.secret("platform_admin", None)
        monkeypatch.setattr(places, "key_for", lambda _url: secret)
        records = tmp_path / "volume"
        lines = grow(records / "router-0", ["bank_a"] * 30, bench.world.catalog)
        bench.world.catalog.count_usage(UsageBatch(writer="router-0", seq=len(lines) - 1, after=-1, lines=()))
        fixed_signer("router").save(tmp_path / "router.key")
        (tmp_path / "token").write_text(SERVICE_TOKEN)
        for name, value in {
            "TENON_CONTROL_URL": url,
            "TENON_SERVICE_TOKEN_FILE": str(tmp_path / "token"),
            "TENON_ROUTER_KEY_FILE": str(tmp_path / "router.key"),
            "TENON_RECORDS_DIR": str(records),
        }.items():
            monkeypatch.setenv(name, value)
        yield url, records


def test_the_command_in_a_routers_container(site: tuple[str, Path]) -> None:
    url, records = site
    assert tenon_here("record", "prune", "--keep", "30").code == 2  # shipped where?
    assert tenon_here("record", "prune", "--keep", "30", "--to", "registry", "--unshipped").code == 2
    kept = tenon_here("record", "prune", "--keep", "0", "--to", "registry", "--json")
    assert json.loads(kept.out)["router-0"]["records"] == 0
    assert tenon_here("record", "ship", "--to", "registry").code == 0
    done = tenon_here("record", "prune", "--keep", "0", "--to", "registry", "--json")
    assert done.code == 0, done.err
    begins = json.loads(done.out)["router-0"]["begins"]
    assert 20 < begins < 30
    said = tenon_here("log", "verify", "--records", str(records), "-w", url)
    assert said.code == 0, said.err
    assert f"router-0 begins with record {begins} here" in said.err
    assert "not under a signed head" not in said.err
    assert tenon_here("record", "show", "rec-29", "--records", str(records)).code == 0
    asked = ["exposure", "--event", "vllm-47724", "--records", str(records), "-w", url, "--json", "--since"]
    for since, code in (("2025-12-31T00:00:00Z", 1), (stamp(datetime.now(UTC) - timedelta(hours=1)), 0)):
        exposed = tenon_here(*asked, since)
        assert exposed.code == code, exposed.err
        assert ("were pruned" in exposed.out) == bool(code)


def test_receipts_of_a_pruned_chain(tmp_path: Path) -> None:
    workspace = initialise(tmp_path / "w")
    volume = Volume(tmp_path / "v")
    catalog, key = open_catalog(workspace), signer(workspace, "router")

    async def write() -> list[bytes]:
        segments = Segments(workspace.records / "w", writer="w", segment_bytes=3000)
        log = RecordLog(segments, writer="w", clock=volume.clock, cadence=Cadence())
        await log.open()
        for _ in range(5):
            await volume.put(log, 6)
            tail = log.durable
            assert tail is not None
            known = catalog.record_head_known("w")
            lines = [
                line
                for file in segments_of(workspace.records / "w")
                for line in file.read_bytes().splitlines()
            ]
            head = RecordHead(
                writer="w",
                seq=tail.seq - 1,
                digest=tail.digest,
                at=stamp(START),
                first=known.seq + 1,
                root=_root(lines[known.seq + 1 :]),
                after=known.digest,
            )
            catalog.record_head(key.sign(RECORD_HEAD, head.canonical()), actor="test")
        await log.close()
        return lines

    lines = asyncio.run(write())
    catalog.count_usage(UsageBatch(writer="w", seq=29, after=-1, lines=()))
    done = tenon_here("record", "prune", "--keep", "0", "--unshipped", "--json", "-w", str(workspace.root))
    assert done.code == 0, done.err
    begins = json.loads(done.out)["w"]["begins"]
    assert tenon_here("log", "verify", "-w", str(workspace.root)).code == 0
    proven, refused, file = [], [], tmp_path / "receipt.json"
    for number, line in enumerate(lines):
        file.write_bytes(issue(line, key).canonical())
        try:
            prove_receipt(file, catalog=catalog, records=workspace.records)
            proven.append(number)
        except ReceiptInvalid as error:
            refused.append(error.message)
    assert all("was pruned" in each for each in refused)
    assert proven == list(range(-(-begins // 6) * 6, 30))
    verify_receipt_file(file, trust=None, workspace=workspace)


def _root(lines: Sequence[bytes]) -> Digest:
    return Digest(f"sha256:{root([leaf_hash(bytes.fromhex(Digest.of(each).hex)) for each in lines]).hex()}")


def test_a_beginning_keeps_its_bytes() -> None:
    said = RecordStart(writer="w", segment=2, seq=9, after=Digest.of(b"x"), at="2026-01-01T00:00:00.000000Z")
    assert said.canonical() == (
        b'{"after":"' + Digest.of(b"x").encode() + b'","at":"2026-01-01T00:00:00.000000Z",'
        b'"kind":"tenon.record-start/v1","segment":2,"seq":9,"writer":"w"}'
    )
