"""A version that cannot be fetched is left alone for longer and longer, unless nothing was learnt of it."""

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from registry.clock import stamp
from registry.digests import Digest
from registry.errors import BlobCorrupt, BlobNotFound, InvalidDocument, TenonError
from registry.feed import State
from registry.promotions import Preparation
from registry.signing.envelope import Envelope
from server.engines.boot import Boot
from server.engines.cadence import Cadence
from server.engines.client import VllmClient
from server.engines.errors import CacheUnusable
from server.engines.pauses import Pause, Pauses
from server.engines.refetching import Refetching
from server.engines.residency import Plan
from server.engines.state import AgentState
from server.errors import ControlBusy, ControlRefused, ControlUnreachable
from tests.unit.server.engines.bench import SLOW, Bench

A = Digest.of(b"a")
AWAY = ControlUnreachable("no answer from the control plane: ClientConnectorError")


class Fetches:
    """The blobs of a bench: what was asked for, when, and what is wrong with which."""

    def __init__(self, bench: Bench) -> None:
        self.times: dict[Digest, list[float]] = {}
        self.wrong: dict[Digest, bytes | TenonError] = {}
        self._blob = bench.control.blob
        bench.control.blob = self._fetch  # type: ignore[method-assign]

    async def _fetch(self, digest: Digest) -> bytes:
        self.times.setdefault(digest, []).append(asyncio.get_running_loop().time())
        match self.wrong.get(digest):
            case TenonError() as error:
                raise error
            case bytes() as data:
                return data
        return await self._blob(digest)

    def count(self, digest: Digest) -> int:
        return len(self.times.get(digest, []))


async def weights_of(bench: Bench, version: Digest) -> Digest:
    return (await bench.control.manifest(version)).files[1].digest


def running_boot(bench: Bench) -> Boot:
    life = bench.agent._life
    assert life is not None
    assert life.boot is not None
    return life.boot


def pausing(first: float, longest: float, **changes: float) -> Cadence:
    """Nothing but what is due next wakes this agent."""
    return replace(SLOW, poll=60, backoff=(first, longest), **changes)  # type: ignore[arg-type]


def test_each_pause_is_twice_as_long_as_the_one_before_up_to_the_longest() -> None:
    pauses, now, gaps = Pauses(1.0, 60.0), 100.0, list[float]()
    for _ in range(8):
        pause = pauses.failed(A, "wrong", now)
        assert set(pauses.waiting(pause.until - 0.001)) == {A}
        assert pauses.waiting(pause.until) == {}
        gaps.append(pause.until - now)
        now = pause.until
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60]
    for _ in range(2000):  # a day and a half
        assert pauses.failed(A, "wrong", now).until == now + 60
    pauses.over(A)
    assert pauses.failed(A, "wrong", now) == Pause(1, now + 1, "wrong")


def test_a_control_plane_that_is_away_neither_lengthens_a_pause_nor_ends_what_was_learnt() -> None:
    refetching = Refetching(pauses=(1.0, 60.0))
    for tries in (1, 2, 3):
        assert refetching.failed(A, BlobCorrupt("wrong"), 0.0).tries == tries
    for _ in range(5):
        assert refetching.failed(A, AWAY, 0.0) == Pause(3, 1.0, AWAY.message)
    assert refetching.failed(A, BlobCorrupt("wrong"), 0.0) == Pause(4, 8.0, "wrong")
    refetching.fetched(A)
    assert refetching.failed(A, BlobCorrupt("wrong"), 0.0) == Pause(1, 1.0, "wrong")


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (BlobCorrupt("the bytes received are not it"), 8.0),
        (BlobNotFound("no blob"), 8.0),
        (CacheUnusable("No space left on device"), 8.0),
        (InvalidDocument("no manifest"), 8.0),
        (ControlRefused("refused", status_code=404, problem="blob_not_found"), 8.0),
        (ControlBusy("no answer", status_code=500, problem="blob_corrupt"), 8.0),
        (ControlUnreachable("broke off", begun=True), 8.0),
        (ControlUnreachable("no answer"), 1.0),
        (ControlBusy("no answer", status_code=503, problem="blobs_unavailable"), 1.0),
        (ControlBusy("no answer", status_code=502, problem=""), 1.0),
    ],
)
def test_what_is_delivered_wrong_or_not_at_all_is_told_from_silence(
    error: TenonError, seconds: float
) -> None:
    refetching = Refetching(pauses=(1.0, 60.0))
    for _ in range(3):
        refetching.failed(A, BlobCorrupt("wrong"), 0.0)
    assert refetching.failed(A, error, 0.0).until == seconds


def test_pauses_end_with_what_people_do_about_a_version_and_with_nothing_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    version = bench.adapter("bank_a", seed=1)
    state = State.of(bench.control.snapshot())
    refetching = Refetching(pauses=(1.0, 60.0))

    def ends(state: State, news: State) -> bool:
        refetching.heard(state)
        refetching.failed(version, BlobCorrupt("wrong"), 0.0)
        refetching.heard(news)
        return version not in refetching.waiting(0.5)

    assert not ends(state, state)
    assert not ends(state, State.of(bench.control.snapshot())), "everything was read again, and is the same"
    bench.adapter("retail_b", seed=2)
    others = State.of(bench.control.snapshot())
    assert not ends(state, others)
    key, known = ("bank_a", "assistant", "live"), state.versions[version]
    prepared = Preparation(
        tenant=key[0], adapter=key[1], alias=key[2], version=version, epoch=1, until=stamp(bench.clock.now())
    )
    signed = known.model_copy(update={"fingerprint": A})
    moved = state.aliases[key].model_copy(update={"epoch": 2})
    for news in (
        replace(others, preparations={key: prepared}),
        replace(others, versions={**others.versions, version: signed}),
        replace(others, aliases={**others.aliases, key: moved}),
        replace(others, versions={}),
    ):
        assert ends(others, news)


async def test_a_corrupt_blob_is_fetched_after_pauses_that_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, cadence=pausing(0.1, 0.4))
    version = bench.adapter("bank_a", seed=1)
    weights, fetches, turns = await weights_of(bench, version), Fetches(bench), Counter[str]()
    fetches.wrong[weights] = b"not what was stored"
    reconcile = Boot.reconcile

    async def counted(boot: Boot, state: State) -> Plan:
        turns["all"] += 1
        return await reconcile(boot, state)

    async with bench.running():
        state = await bench.until(lambda state: version in state.not_ready and state.settled)
        assert "the bytes received for adapter_model.safetensors are not" in state.not_ready[version].text
        assert not state.is_ready
        with monkeypatch.context() as patched:
            patched.setattr(Boot, "reconcile", counted)
            first = fetches.count(weights)
            await bench.until(lambda state: fetches.count(weights) == first + 5)
        assert turns["all"] <= 7, "it slept until the next try was due"
        del fetches.wrong[weights]
        await bench.until(lambda state: version in state.ready and state.is_ready)
        assert running_boot(bench)._faults._refetching._pauses.versions == set(), "it would start anew"
    gaps = [after - before for before, after in pairwise(fetches.times[weights])]
    assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.4, 0.4), strict=False)] == [True] * 5


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        ControlBusy("the control plane could not answer GET", status_code=502, problem=""),
        ControlBusy("the control plane could not answer GET", status_code=503, problem="store_busy"),
    ],
)
async def test_what_waited_for_the_control_plane_is_fetched_as_soon_as_that_is_back(
    tmp_path: Path, error: TenonError
) -> None:
    bench = Bench(tmp_path, cadence=pausing(0.02, 60.0))
    version = bench.adapter("bank_a", seed=1)
    weights, fetches = await weights_of(bench, version), Fetches(bench)
    fetches.wrong[weights] = error
    async with bench.running():
        await bench.until(lambda state: fetches.count(weights) >= 15)
        await bench.until(
            lambda state: version in state.not_ready and state.not_ready[version].text == error.message
        )
        del fetches.wrong[weights]
        await bench.until(lambda state: version in state.ready)


@pytest.mark.parametrize(
    "error",
    [
        ControlUnreachable("the control plane's answer broke off: ClientPayloadError", begun=True),
        ControlBusy("the control plane could not answer GET", status_code=500, problem="blob_corrupt"),
    ],
)
async def test_a_control_plane_that_holds_a_corrupt_blob_is_not_taken_for_one_that_is_away(
    tmp_path: Path, error: TenonError
) -> None:
    """It sends a large one as far as the end, and then breaks off."""
    bench = Bench(tmp_path, cadence=pausing(0.1, 60.0))
    version = bench.adapter("bank_a", seed=1)
    weights, fetches = await weights_of(bench, version), Fetches(bench)
    fetches.wrong[weights] = error
    async with bench.running():
        await bench.until(lambda state: fetches.count(weights) == 4)
    gaps = [after - before for before, after in pairwise(fetches.times[weights])]
    assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4), strict=True)] == [True] * 3


async def test_a_load_that_fails_is_asked_for_after_pauses_that_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, cadence=pausing(0.1, 0.4))
    async with bench.running():
        await bench.until(lambda state: state.is_ready)
        times, load = list[float](), VllmClient.load

        async def timed(client: VllmClient, name: str, folder: Path) -> None:
            times.append(asyncio.get_running_loop().time())
            await load(client, name, folder)

        monkeypatch.setattr(VllmClient, "load", timed)
        await bench.fault(refuse_load=500)
        version = bench.adapter("bank_a", seed=1)

        def pressed(_: AgentState) -> bool:
            bench.agent._following.news.set()
            return len(times) == 5

        await bench.until(pressed)
        await bench.fault(refuse_load=0)
        await bench.until(lambda state: version in state.ready)
    gaps = [after - before for before, after in pairwise(times)]
    assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.4, 0.4), strict=False)] == [True] * 5


async def test_what_is_promoted_again_is_fetched_at_once_and_others_news_change_nothing(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, cadence=pausing(60.0, 60.0))
    version = bench.adapter("bank_a", seed=1)
    weights, fetches = await weights_of(bench, version), Fetches(bench)
    fetches.wrong[weights] = b"not what was stored"
    async with bench.running():
        await bench.until(lambda state: version in state.not_ready and state.settled)
        other = bench.adapter("retail_b", seed=2)
        state = await bench.until(lambda state: other in state.ready)
        assert fetches.count(weights) == 1
        assert "the bytes received" in state.not_ready[version].text
        bench.control.point(version, alias="again")
        await bench.until(lambda state: fetches.count(weights) == 2)
        del fetches.wrong[weights]
        bench.control.point(version, alias="and-again")
        await bench.until(lambda state: version in state.ready)


async def test_what_is_held_does_not_make_the_agent_ask_a_control_plane_without_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try that is due cannot be made before the engine is announced again."""
    bench = Bench(tmp_path, cadence=pausing(0.3, 0.3, retry=0.1))
    version = bench.adapter("bank_a", seed=1)
    weights, fetches, asked = await weights_of(bench, version), Fetches(bench), list[float]()
    fetches.wrong[weights] = b"not what was stored"

    async def away(engine: str, envelope: Envelope) -> None:
        asked.append(asyncio.get_running_loop().time())
        raise ControlUnreachable("no answer")

    def still_held(_: AgentState) -> bool:
        due = running_boot(bench).due
        return due is not None and due < asyncio.get_running_loop().time() and len(asked) >= 6

    async with bench.running():
        await bench.until(lambda state: version in state.not_ready and state.settled)
        with monkeypatch.context() as patched:
            patched.setattr(bench.control, "announce", away)
            bench.control.suppose_dead(bench.spec.engine)
            await bench.until(still_held)
            gaps = [after - before for before, after in pairwise(asked)]
        assert all(gap >= 0.1 for gap in gaps[1:]), gaps  # the first may be cut short by the news
