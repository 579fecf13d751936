"""What an agent gets over by itself: disks that are full for a moment, feeds that make no sense, slots that
end at the wrong time, and somebody who speaks in its name."""

import asyncio
import errno
import itertools
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.errors import AttestationInvalid, EngineDown, EngineReplaced
from registry.digests import Digest
from registry.errors import SignatureInvalid
from registry.feed import News, Position
from registry.models import Base
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from registry.signing.types import ANNOUNCEMENT
from server.engines import findings, guarded
from server.engines.errors import EngineStartFailed
from tests.unit.server.engines.bench import QUICK, Bench, group_of


def _kill(bench: Bench) -> None:
    for pid in group_of(bench):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


async def _down(bench: Bench, why: str) -> None:
    await bench.until(lambda state: any(why in event.text for event in bench.events if event.kind == "down"))


async def test_a_disk_that_is_full_at_a_restart_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(lambda state: version in state.ready)).boot

        def full(folder: Path, **_: Any) -> Path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(guarded, "prepare", full)
            bench.agent._around = replace(bench.agent._around, guard=tmp_path / "guard")
            _kill(bench)
            await _down(bench, "No space left on device")
        bench.agent._around = replace(bench.agent._around, guard=None)
        await bench.until(lambda state: version in state.ready and state.boot != first)


async def test_a_base_that_is_away_at_a_restart_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(lambda state: version in state.ready)).boot
        read = bench.agent._describe

        def gone() -> Base:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")

        bench.agent._describe = gone
        _kill(bench)
        await _down(bench, "No such file or directory")
        bench.agent._describe = read
        await bench.until(lambda state: version in state.ready and state.boot != first)


async def test_a_disk_that_is_full_at_the_first_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, cadence=QUICK)

    def full(folder: Path, **_: Any) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(guarded, "prepare", full)
    bench.agent._around = replace(bench.agent._around, guard=tmp_path / "guard")
    with pytest.raises(EngineStartFailed, match="No space left on device"):
        await bench.agent.run()


async def test_a_feed_that_makes_no_sense_for_a_moment_is_asked_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await bench.until(lambda state: version in state.ready)
        read, asked = bench.control.read, list[Position | None]()

        async def nonsense(known: Position | None, wait: float) -> News | None:
            asked.append(known)
            if len(asked) == 1:
                raise ValueError("of a newer release")
            return await read(known, wait)

        monkeypatch.setattr(bench.control, "read", nonsense)
        other = bench.adapter("retail_b", seed=2)
        await bench.until(lambda state: other in state.ready)
    assert asked[0] is not None
    assert asked[1] is None
    assert any("ValueError" in event.text for event in bench.events)


async def test_a_slot_that_ends_before_the_agent_hears_of_it_is_attested_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    attest, ended = bench.control.attest, list[Digest]()

    async def and_ends(envelope: Envelope) -> int:
        size = await attest(envelope)
        if not ended:
            (key,) = bench.control._slots
            ended.append(key[1])
            del bench.control._slots[key]
            bench.control._size += 1  # the very next entry, in the same news
        return size

    monkeypatch.setattr(bench.control, "attest", and_ends)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await bench.until(lambda state: bool(ended) and bench.control.slots == {version})
        await bench.until(lambda state: state.is_ready and version in state.ready)


async def test_an_agent_that_is_told_by_a_refusal_that_it_counts_as_down_keeps_its_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the feed says so: it announces the same boot again, and every finding."""
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(lambda state: version in state.ready)).boot
        attest, refused = bench.control.attest, list[str]()

        async def and_dead(envelope: Envelope) -> int:
            if not refused:  # nobody is told of it but by this refusal
                engine = bench.control._engines[bench.spec.engine]
                bench.control._engines[bench.spec.engine] = engine.model_copy(update={"up": False})
                bench.control._slots.clear()
            try:
                return await attest(envelope)
            except EngineDown as error:
                refused.append(error.code)
                raise

        monkeypatch.setattr(bench.control, "attest", and_dead)
        other = bench.adapter("retail_b", seed=2)
        await bench.until(lambda state: bench.control.slots == {version, other} and state.is_ready)
        assert set(refused) == {"engine_down"}
        assert bench.agent.state.boot == first
        assert [each.up for each in bench.control.announced] == [True, True]
    assert not {"taken", "failed"} & set(bench.kinds())


async def test_what_failed_and_was_not_handed_over_yet_is_said_when_the_engine_is_announced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    good = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await bench.until(lambda state: good in state.ready)
        await bench.fault(wrong_effect_load=str(tmp_path / "bank_a"))
        attest, seen = bench.control.attest, list[Digest]()

        async def and_dead(envelope: Envelope) -> int:
            if not seen:
                seen.append(good)
                bench.control.suppose_dead(bench.spec.engine)
            return await attest(envelope)

        monkeypatch.setattr(bench.control, "attest", and_dead)
        bad = bench.adapter("retail_b", seed=2)
        await bench.until(
            lambda state: any(each.version == bad and not each.passed for each in bench.control.attestations)
        )
        await bench.until(lambda state: bench.control.slots == {good} and bad in state.not_ready)


async def test_what_is_not_listed_yet_is_not_taken_for_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    versions = {bench.adapter(name, seed=seed) for seed, name in enumerate(("bank_a", "retail_b"))}
    async with bench.running():
        await bench.until(lambda state: state.is_ready and versions <= set(state.ready))
        for _ in range(20):
            bench.control._entry()
            await asyncio.sleep(0.01)
        await bench.until(lambda state: state.is_ready and state.settled)
        attested = [event for event in bench.events if event.kind == "attested"]
    assert len(attested) == len(versions), "nothing was taken back and said again"


async def test_a_refused_attestation_is_not_said_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "_PAUSE", (0.2, 60.0))
    bench = Bench(tmp_path, cadence=QUICK)
    loop, times = asyncio.get_running_loop(), list[float]()
    attest = bench.control.attest

    async def refuses(envelope: Envelope) -> int:
        times.append(loop.time())
        if len(times) < 4:
            raise AttestationInvalid("not this one")
        return await attest(envelope)

    monkeypatch.setattr(bench.control, "attest", refuses)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await bench.until(lambda state: version in state.ready)
        assert bench.control.slots == {version}
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert [gap >= at_least for gap, at_least in zip(gaps, (0.2, 0.4, 0.8), strict=False)] == [True] * 3


async def test_nobody_with_a_token_alone_speaks_for_an_engine(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    own = Signer("engine", b"e" * 32)
    async with bench.running():
        await bench.until(lambda state: state.is_ready and version in state.ready)
        mine = bench.control._engines["engine-0"]
        assert mine.key == own.public.id
        elsewhere = mine.model_copy(update={"url": "http://10.6.6.6:1"}).canonical()
        stranger = Signer("engine", b"x" * 32)
        with pytest.raises(SignatureInvalid):
            await bench.control.announce("engine-0", stranger.sign(ANNOUNCEMENT, elsewhere))
        with pytest.raises(EngineReplaced):  # not even with its key
            await bench.control.announce("engine-0", own.sign(ANNOUNCEMENT, elsewhere))
        assert bench.control.slots == {version}


async def test_an_agent_does_not_attest_a_boot_that_is_listed_as_another(tmp_path: Path) -> None:
    """As a registry would that takes such announcements: slots would stand behind the other address."""
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(lambda state: state.is_ready and version in state.ready)).boot
        mine = bench.control._engines["engine-0"]
        bench.control._engines["engine-0"] = mine.model_copy(update={"url": "http://10.6.6.6:1"})
        bench.control._slots.clear()
        bench.control._entry()
        await bench.until(lambda state: version in state.ready and state.boot != first)
        assert bench.control._engines["engine-0"].url == mine.url
    assert any("engine_misannounced" in event.text for event in bench.events)
