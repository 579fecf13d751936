"""GET /feed: what is told, to whom, and that waiting for it costs little."""

import asyncio
import gzip
import threading
import time
from typing import Any

import pytest

from registry.digests import Digest
from registry.feed import Delta, Snapshot, State, parse
from registry.models import Tenant
from registry.store.errors import StoreBusy, StoreUnavailable
from server.api import feed
from server.api.app import create_app
from server.api.feed import Bodies, Body
from server.api.watch import Watch
from tests.support.control import ControlWorld

ROOT = Digest.of(b"root")


def tenant(bench: ControlWorld, name: str) -> None:
    bench.world.catalog.create_tenant(Tenant(id=name, display_name=name), actor="test")


def test_a_snapshot_then_a_delta_then_nothing(bench: ControlWorld) -> None:
    answer = bench.call("GET", "/feed", "service")
    start = parse(answer.content)
    assert isinstance(start, Snapshot)
    assert start == bench.world.catalog.snapshot()
    known = {"after": start.size, "root": start.root}
    empty = bench.call("GET", "/feed", "service", params=known)
    assert (empty.status_code, empty.content) == (204, b"")
    tenant(bench, "saas_c")
    delta = parse(bench.call("GET", "/feed", "service", params=known).content)
    assert isinstance(delta, Delta)
    assert State.of(start).after(delta).snapshot() == bench.world.catalog.snapshot()


@pytest.mark.parametrize("role", ["platform_admin", "tenant_admin", "trainer", "inference"])
def test_only_tenons_own_processes_follow_everything(bench: ControlWorld, role: str) -> None:
    answer = bench.call("GET", "/feed", role)
    assert answer.status_code == 403
    assert "tenants" not in answer.json()


def test_a_reader_of_another_log_is_told_nothing(bench: ControlWorld) -> None:
    here = bench.world.catalog.position()
    tenant(bench, "saas_c")
    other = Digest.of(b"another log")
    for size, root, code in (
        (here.size, other, "log_forked"),
        (here.size + 1, other, "log_forked"),
        (here.size + 2, here.root, "log_truncated"),
    ):
        answer = bench.call("GET", "/feed", "service", params={"after": size, "root": root})
        assert (answer.status_code, answer.json()["code"]) == (409, code)
        assert "tenants" not in answer.json()


def test_large_answers_are_compressed_for_those_who_can_read_it(
    bench: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_COMPRESSED", 100)
    plain = bench.call("GET", "/feed", "service", headers={"Accept-Encoding": "identity"})
    with bench.client.stream(
        "GET", "/api/v1/feed", headers=bench.headers("service") | {"Accept-Encoding": "gzip"}
    ) as packed:
        raw = b"".join(packed.iter_raw())
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert len(raw) < len(plain.content)
    assert gzip.decompress(raw) == plain.content


async def test_a_reader_that_hangs_up_is_waited_for_no_longer(bench: ControlWorld) -> None:
    """A control plane that stops gives requests 15 s, and those of engines that are gone used them up."""
    known = bench.world.catalog.position()
    body = [{"type": "http.request", "body": b"", "more_body": False}]
    hung_up = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if body:
            return body.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/feed",
        "query_string": f"after={known.size}&root={known.root}&wait=30".encode(),
        "headers": [(b"authorization", bench.headers("service")["Authorization"].encode())],
    }
    reading = asyncio.create_task(create_app(bench.control)(scope, receive, send))
    done, _ = await asyncio.wait({reading}, timeout=0.3)
    assert not done, "it waits for news"
    hung_up.set()
    async with asyncio.timeout(5):
        await reading


# One look for all who wait


class Log:
    """Counts the looks."""

    def __init__(self) -> None:
        self.size = 5
        self.looks = 0
        self.fault: Exception | None = None
        self.stuck: threading.Event | None = None

    def look(self) -> int:
        self.looks += 1
        if self.stuck is not None:
            self.stuck.wait(10)
        if self.fault is not None:
            raise self.fault
        return self.size


async def test_a_hundred_readers_cost_one_look_at_a_time() -> None:
    log = Log()
    watch = Watch(log.look, interval=0.02)
    waiting = [asyncio.create_task(watch.moved(5, 10)) for _ in range(100)]
    behind = asyncio.create_task(watch.moved(4, 10))
    assert await behind
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in waiting)
    assert log.looks < 10
    log.size = 6
    assert all(await asyncio.gather(*waiting))
    looks = log.looks
    await asyncio.sleep(0.1)
    assert log.looks <= looks + 1  # nobody waits: nobody looks
    assert await watch.moved(5, 1)


async def test_nothing_new_is_said_only_after_a_look() -> None:
    log = Log()
    watch = Watch(log.look, interval=0.01)
    assert not await watch.moved(5, 0.1)
    log.stuck = threading.Event()
    with pytest.raises(StoreUnavailable):
        await watch.moved(5, 0.1)
    log.stuck.set()


async def test_a_look_that_fails_fails_everybody_who_waits_and_nobody_later() -> None:
    log = Log()
    log.fault = StoreBusy("locked")
    watch = Watch(log.look, interval=0.01)
    found = await asyncio.gather(watch.moved(5, 10), watch.moved(5, 10), return_exceptions=True)
    assert [type(each) for each in found] == [StoreBusy, StoreBusy]
    log.fault = None
    assert not await watch.moved(5, 0.05)


async def test_an_answer_is_made_once_for_all_who_ask_the_same() -> None:
    made: list[feed.Question] = []

    def make(question: feed.Question) -> Body | None:
        made.append(question)
        time.sleep(0.02)
        return None if question[0] == 7 else Body(b"%d" % question[0], False, 0.01)

    bodies = Bodies(make)
    answers = await asyncio.gather(*(bodies.answer((after, ROOT)) for after in [5] * 10 + [6] * 10))
    assert sorted(made) == [(5, ROOT), (6, ROOT)]
    assert [answer.data for answer in answers if answer is not None] == [b"5"] * 10 + [b"6"] * 10
    await bodies.answer((5, ROOT))
    assert len(made) == 2  # for a moment, the same answer still serves
    assert await bodies.answer((7, ROOT)) is await bodies.answer((7, ROOT)) is None
    assert len(made) == 4  # "nothing new" is never remembered
    for _ in range(2):
        await bodies.answer((-1, None))
    assert len(made) == 6  # a cheap snapshot is always the newest


async def test_a_costly_snapshot_is_handed_out_again_and_a_failure_is_not() -> None:
    made: list[feed.Question] = []

    def make(question: feed.Question) -> Body | None:
        made.append(question)
        if len(made) == 1:
            raise StoreBusy("locked")
        return Body(b"", True, 2.0)

    bodies = Bodies(make)
    with pytest.raises(StoreBusy):
        await bodies.answer((-1, None))
    for _ in range(3):
        await bodies.answer((-1, None))
    assert len(made) == 2


async def test_a_reader_that_hangs_up_leaves_the_answer_to_the_others() -> None:
    go = threading.Event()

    def make(question: feed.Question) -> Body | None:
        go.wait(5)
        return Body(b"all", False, 0.0)

    bodies = Bodies(make)
    first = asyncio.ensure_future(bodies.answer((5, None)))
    second = asyncio.ensure_future(bodies.answer((5, None)))
    first.cancel()
    go.set()
    body = await second
    assert body is not None
    assert body.data == b"all"
