"""The real agent over a real child process (the fake vLLM) and a control plane in memory."""

import asyncio
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from registry.digests import Digest
from registry.fingerprint import MAX_PROBE_TOKENS, Fingerprint, Probe
from registry.names import engine_name
from registry.signing.envelope import Envelope
from server.engines.errors import EngineBaseUnknown, EngineStartFailed, EngineUnsafeVersion
from server.errors import ControlUnreachable
from server.testing.fake_model import fake_contract, fake_fingerprint, fake_logprobs, signature, weights_of
from tests.support.adapters import write_adapter
from tests.unit.server.engines.bench import BASE, QUICK, Bench, cmdline, group_of


async def test_what_aliases_point_to_is_loaded_attested_and_answers(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    versions = {
        name: bench.adapter(name, seed=seed) for seed, name in enumerate(("bank_a", "retail_b", "saas_c"))
    }
    async with bench.running():
        state = await bench.until(lambda state: state.is_ready and len(state.ready) == 3)
        assert set(state.ready) == set(versions.values()) == bench.control.slots
        for name, version in versions.items():
            assert await bench.said({"model": engine_name(version)}) == {signature(bench.weights(name))}
        (up,) = bench.control.announced
        assert up.up
        assert up.base == BASE.identity()
        assert up.boot == state.boot
        assert {found.strength for found in bench.control.attestations} == {"exact"}
        assert {found.boot for found in bench.control.attestations} == {up.boot}
    assert [each.up for each in bench.control.announced] == [True, False]
    assert bench.control.slots == set()
    assert bench.kinds()[0] == "starting"
    assert bench.kinds()[-1] == "stopped"
    with pytest.raises(aiohttp.ClientError):
        await bench.said({})


async def test_a_promotion_loads_the_new_version_and_attests_everybody_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await bench.until(lambda state: set(state.ready) == {first})
        bench.clock.advance(7200)  # so that a second look at the first is logged
        second = bench.adapter("bank_a", seed=2)
        await bench.until(lambda state: set(state.ready) == {first, second})
        await bench.until(lambda state: len(bench.control.attestations) == 3)
        assert [found.version for found in bench.control.attestations] == [first, first, second] or [
            found.version for found in bench.control.attestations
        ] == [first, second, first]
        # And back: it stayed loaded, so nothing is loaded again.
        loads = bench.kinds().count("loading")
        bench.control.point(first)
        size = bench.control.snapshot().size
        await bench.until(lambda state: state.settled and bench.control.snapshot().size >= size)
        assert set(bench.agent.state.ready) == {first, second}
        assert bench.kinds().count("loading") == loads == 2


async def test_a_wrong_effect_load_is_published_as_failed_and_never_served(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    good = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await bench.until(lambda state: set(state.ready) == {good})
        await bench.fault(wrong_effect_load=str(tmp_path / "bank_a"))
        bad = bench.adapter("retail_b", seed=2)
        state = await bench.until(lambda state: bad in state.not_ready and state.settled)
        assert "attestation_failed" in state.not_ready[bad].text
        assert state.is_ready, "who publishes what is not recognised holds nobody up"
        assert set(state.ready) == {good} == bench.control.slots
        assert not next(found for found in bench.control.attestations if found.version == bad).passed
        # It is never tried again in this boot, whatever else happens.
        bench.control.point(bad, alias="again")
        await bench.until(lambda state: state.settled)
        assert bench.control.slots == {good}


async def test_a_zero_effect_load_fails(tmp_path: Path) -> None:
    bench = Bench(tmp_path, faults='{"zero_effect_load": true}')
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        state = await bench.until(lambda state: version in state.not_ready and state.settled)
        assert "attestation_failed" in state.not_ready[version].text
        assert not state.is_ready, "nothing is served: the engine may be what is wrong"
        assert bench.control.slots == set()
        (found,) = bench.control.attestations
        assert found.nearest.what == "base"
        assert found.nearest.distance == 0


async def test_d3_a_folder_swapped_under_a_running_engine_cannot_be_reached(tmp_path: Path) -> None:
    """The CPU cache holds every name a boot may load, so nothing is ever read from disk a second time."""
    bench = Bench(tmp_path, max_loras=3, max_cpu_loras=3)
    mine, other = bench.adapter("bank_a", seed=1), bench.adapter("retail_b", seed=2)
    async with bench.running():
        await bench.until(lambda state: len(state.ready) == 2)
        for file in bench.cache.folder(other).iterdir():
            target = bench.cache.folder(mine) / file.name
            target.chmod(0o644)
            target.write_bytes(file.read_bytes())
        third = bench.adapter("saas_c", seed=3)
        state = await bench.until(lambda state: len(state.ready) == 3)
        assert third in state.ready
        assert await bench.said({"model": engine_name(mine)}) == {signature(bench.weights("bank_a"))}
        # A fourth name would push one out: it is refused a slot instead.
        fourth = bench.adapter("late_d", seed=4)
        size = bench.control.snapshot().size
        state = await bench.until(lambda state: state.settled and bench.control.snapshot().size >= size)
        assert state.is_ready, "an engine that is full is not broken"
        assert set(state.ready) == {mine, other, third}
        assert fourth not in bench.control.slots
        assert bench.kinds().count("loading") == 3


async def test_d3_a_folder_damaged_before_a_load_is_replaced_not_loaded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await bench.until(lambda state: version in state.ready)
    weights = bench.cache.folder(version) / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"another tenant's")
    again = Bench(tmp_path)
    assert again.adapter("bank_a", seed=1) == version
    async with again.running():
        await again.until(lambda state: version in state.ready)
        assert weights.read_bytes() == (tmp_path / "bank_a" / "adapter_model.safetensors").read_bytes()


async def test_d7_every_probe_has_a_salt_of_its_own_and_sees_weights_that_changed(tmp_path: Path) -> None:
    """The prefix cache would still answer with the old weights; the heartbeat is not fooled."""
    bench = Bench(tmp_path, cadence=QUICK, max_loras=1, max_cpu_loras=1)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(lambda state: version in state.ready)).boot
        stale = {"model": engine_name(version), "cache_salt": "tenant"}
        assert await bench.said(stale) == {signature(bench.weights("bank_a"))}
        # An intruder makes vLLM read other weights for our name: its own load evicts ours.
        intruder = write_adapter(tmp_path / "intruder", BASE, seed=9)
        await bench.fault(wrong_effect_load=str(intruder))
        body = {"lora_name": "intruder", "lora_path": str(intruder)}
        async with aiohttp.ClientSession() as session:
            await session.post(bench.spec.url + "/v1/load_lora_adapter", json=body)
        assert await bench.said(stale) == {signature(bench.weights("bank_a"))}, "the cache still lies"
        await bench.until(lambda state: "failed" in bench.kinds())
        await bench.until(lambda state: not bench.control.slots or state.boot != first)


async def test_d3_files_changed_under_a_running_engine_end_its_boot(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(lambda state: version in state.ready)).boot
        target = bench.cache.folder(version) / "adapter_model.safetensors"
        target.chmod(0o644)
        target.write_bytes(b"another tenant's")
        state = await bench.until(lambda state: version in state.ready and state.boot != first)
        assert await bench.said({"model": engine_name(version)}) == {signature(bench.weights("bank_a"))}
        assert any("engine_cache_damaged" in event.text for event in bench.events)
        second = state.boot
        folder = bench.cache.folder(version)
        folder.rename(tmp_path / "moved away")
        await bench.until(lambda state: version in state.ready and state.boot not in (first, second))
        assert folder.is_dir()


async def test_d9_d10_the_base_is_never_given_out(tmp_path: Path) -> None:
    """vLLM answers as the base when asked carelessly; nothing that the registry is told leads there."""
    bench = Bench(tmp_path)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        state = await bench.until(lambda state: version in state.ready)
        assert await bench.said({"model": engine_name(version)}, "/invocations") == {"base"}
        assert await bench.said({"model": ""}) == {"base"}
        snapshot = bench.control.snapshot()
        assert {slot.version for slot in snapshot.slots} == {version}
        assert "tenon-base" not in snapshot.canonical().decode()
        assert "tenon-base" not in str(state.as_json())


async def test_another_tokenizer_or_template_serves_nobody(tmp_path: Path) -> None:
    bench = Bench(tmp_path, faults='{"other_tokens": true}')
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        state = await bench.until(lambda state: version in state.not_ready and state.settled)
        assert "contract_mismatch" in state.not_ready[version].text
        assert not state.is_ready
        assert bench.control.attestations == []
        assert "loading" not in bench.kinds()


async def test_what_does_not_fit_is_told_and_does_not_block_the_rest(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_lora_rank=8)
    good = bench.adapter("bank_a", seed=1)
    bare = bench.adapter("retail_b", seed=2, fingerprinted=False)
    high = bench.adapter("saas_c", seed=3, rank=12)
    foreign = bench.adapter("other_d", seed=4, fingerprint=fake_fingerprint(Digest.of(b"x"), Digest.of(b"y")))
    async with bench.running():
        state = await bench.until(lambda state: state.is_ready and good in state.ready)
        reasons = {version: why.text for version, why in state.not_ready.items()}
        assert "no fingerprint" in reasons[bare]
        assert "another base" in reasons[foreign]
        assert high not in reasons, "no engine is large enough: it is nobody's share"
        assert set(state.ready) == {good}


@pytest.mark.parametrize("endless", ["repeated", "long"])
async def test_a_fingerprint_without_end_is_never_asked(tmp_path: Path, endless: str) -> None:
    """A true one: registries of before took it, and everybody on the engine would wait for the answers."""
    bench = Bench(tmp_path)
    good = bench.adapter("bank_a", seed=1)
    weights = weights_of(write_adapter(tmp_path / "same", BASE, seed=2, rank=4))
    true = fake_fingerprint(BASE.identity(), weights)
    prompt = (1,) * (MAX_PROBE_TOKENS + 1)
    long = Probe(
        kind="tenant",
        token_ids=prompt,
        own=fake_logprobs(weights, prompt),
        base=fake_logprobs(None, prompt),
    )
    probes = true.probes * 500 if endless == "repeated" else (*true.probes, long)
    heavy = bench.adapter("other_d", seed=2, fingerprint=true.model_copy(update={"probes": probes}))
    async with bench.running():
        state = await bench.until(
            lambda state: state.settled and {good, heavy} <= {*state.ready, *state.not_ready}
        )
        assert set(state.ready) == {good}
        assert "not one that engines are asked" in state.not_ready[heavy].text
        assert {found.version for found in bench.control.attestations} == {good}
        assert [event.version for event in bench.events if event.kind == "loading"] == [good]


async def test_an_adapter_that_vllm_refuses_is_not_asked_for_twice(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    async with bench.running():
        await bench.until(lambda state: state.is_ready)
        await bench.fault(refuse_load=400)
        version = bench.adapter("bank_a", seed=1)
        state = await bench.until(lambda state: state.is_ready and version in state.not_ready)
        assert "refused" in state.not_ready[version].text
        size = bench.control.snapshot().size
        bench.control.point(version, alias="again")
        await bench.until(lambda state: state.settled and bench.control.snapshot().size > size)
        assert bench.kinds().count("loading") == 1


async def test_a_load_that_fails_for_a_moment_is_tried_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    async with bench.running():
        boot = (await bench.until(lambda state: state.is_ready)).boot
        await bench.fault(refuse_load=500)
        version = bench.adapter("bank_a", seed=1)
        state = await bench.until(lambda state: version in state.not_ready and state.settled)
        assert "refused" in state.not_ready[version].text
        assert not state.is_ready, "it should be served, and is not"
        await bench.until(lambda state: bench.kinds().count("loading") == 3)
        await bench.fault(refuse_load=0)
        state = await bench.until(lambda state: version in state.ready and state.is_ready)
        assert state.boot == boot
        assert await bench.said({"model": engine_name(version)}) == {signature(bench.weights("bank_a"))}


async def test_several_tenants_loads_that_keep_failing_are_tried_in_a_fresh_boot(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    good = bench.adapter("retail_b", seed=2)
    async with bench.running():
        first = (await bench.until(lambda state: good in state.ready)).boot
        await bench.fault(refuse_load=500)
        bad = {bench.adapter(tenant, seed=1) for tenant in ("bank_a", "bank_c")}
        state = await bench.until(lambda state: {good} | bad <= set(state.ready))
        assert state.boot != first


async def test_the_next_fresh_boot_for_such_loads_comes_no_sooner_than_for_what_is_not_recognised(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, cadence=replace(QUICK, afresh=(3600.0, 3600.0)))
    async with bench.running():
        await bench.until(lambda state: state.is_ready)
        await bench.fault(refuse_load=500)
        first = {bench.adapter(tenant, seed=1) for tenant in ("bank_a", "bank_c")}
        second = (await bench.until(lambda state: first == set(state.ready))).boot
        await bench.fault(refuse_load=500)
        for tenant in ("bank_b", "retail_d"):
            bench.adapter(tenant, seed=2)
        loads = bench.kinds().count("loading")
        state = await bench.until(lambda _: bench.kinds().count("loading") > loads + 4 * QUICK.tries)
        assert (state.boot, set(state.ready), state.is_ready) == (second, first, True)


async def test_one_tenants_loads_that_keep_failing_interrupt_nobody_and_are_tried_again(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    good = bench.adapter("retail_b", seed=2)
    async with bench.running():
        first = (await bench.until(lambda state: good in state.ready)).boot
        await bench.fault(refuse_load=500)
        bad = bench.adapter("bank_a", seed=1)
        state = await bench.until(lambda state: bad in state.not_ready and "other engines" in state.waits_for)
        assert (state.boot, set(state.ready), state.is_ready) == (first, {good}, True)
        await bench.fault(refuse_load=0)
        state = await bench.until(lambda state: {good, bad} <= set(state.ready))
        assert state.boot == first


async def test_what_no_boot_can_load_restarts_the_engine_once_and_keeps_it_from_nothing(
    tmp_path: Path,
) -> None:
    bench = Bench(
        tmp_path, cadence=QUICK, device="cuda", allow_uncertified=True, faults='{"refuse_load": 500}'
    )
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(lambda state: version in state.not_ready)).boot
        state = await bench.until(lambda state: state.is_ready and version in state.not_ready)
        assert state.boot != first
        assert "refused" in state.not_ready[version].text
        bench.control.point(version, alias="again")
        tried = bench.kinds().count("loading")
        await bench.until(lambda _: bench.kinds().count("loading") > tried + 2 * QUICK.tries)
        assert (bench.agent.state.boot, bench.agent.state.is_ready) == (state.boot, True)
        await bench.fault(refuse_load=0)
        await bench.until(lambda state: version in state.ready)
        assert bench.agent.state.boot == state.boot


async def test_an_engine_that_cannot_load_what_another_serves_is_never_ready(tmp_path: Path) -> None:
    """A rolling update would go on, and end the one that works."""
    works = Bench(tmp_path / "engine-0", engine="engine-0", cadence=QUICK)
    unable: dict[str, Any] = {"device": "cuda", "allow_uncertified": True, "faults": '{"refuse_load": 500}'}
    broken = Bench(tmp_path / "engine-1", engine="engine-1", cadence=QUICK, **unable)
    broken.share(works)
    version = works.adapter("bank_a", seed=1)
    async with works.running(), broken.running():
        await works.until(lambda state: version in state.ready)
        await broken.until(lambda _: broken.kinds().count("up") == 2)
        tried = broken.kinds().count("loading")
        await broken.until(lambda _: broken.kinds().count("loading") > tried + 2 * QUICK.tries)
        assert not broken.agent.state.is_ready


async def test_a_blob_that_is_missing_is_fetched_when_it_is_there(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    version = bench.adapter("bank_a", seed=1)
    manifest = await bench.control.manifest(version)
    lost = bench.control.forget_blob(manifest.files[1].digest)
    async with bench.running():
        state = await bench.until(lambda state: version in state.not_ready and state.settled)
        assert "no blob" in state.not_ready[version].text
        assert not state.is_ready
        bench.control.put_blob(lost)
        await bench.until(lambda state: version in state.ready and state.is_ready)


async def test_a_dead_engine_is_announced_and_a_new_boot_starts_from_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(lambda state: version in state.ready)).boot
        server = next(
            pid for pid in group_of(bench) if "fake_vllm" in cmdline(pid) and "guardian" not in cmdline(pid)
        )
        os.kill(server, signal.SIGKILL)
        state = await bench.until(lambda state: version in state.ready and state.boot != first)
        boots = [(each.boot == first, each.up) for each in bench.control.announced]
        assert boots == [(True, True), (True, False), (False, True)]
        assert [found.boot == first for found in bench.control.attestations] == [True, False]
        assert bench.control.slots == {version}
        assert b"tenon_engine_restarts_total 1.0" in bench.agent.metrics.render(state)


async def test_a_hung_engine_is_killed_and_started_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=replace(QUICK, answer=1.0))
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(lambda state: version in state.ready)).boot
        await bench.fault(silent=True)
        await bench.until(lambda state: version in state.ready and state.boot != first)
    assert any("no longer answers" in event.text for event in bench.events)


async def test_an_engine_that_hangs_while_the_control_plane_is_away_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent has something to tell and cannot: that must not keep it from looking at the engine."""
    bench = Bench(tmp_path, cadence=replace(QUICK, answer=1.0))
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(lambda state: version in state.ready)).boot

        async def away(engine: str, envelope: Envelope) -> None:
            raise ControlUnreachable("no answer")

        with monkeypatch.context() as patched:
            patched.setattr(bench.control, "announce", away)
            bench.control.suppose_dead(bench.spec.engine)
            await bench.until(lambda state: any(event.text == "no answer" for event in bench.events))
            await bench.fault(silent=True)
            await bench.until(lambda state: any("no longer answers" in event.text for event in bench.events))
        await bench.until(lambda state: version in state.ready and state.boot != first)


async def test_the_control_plane_may_be_away_for_a_while(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    bench.control.reachable = False
    async with bench.running():
        await bench.until(lambda state: state.doing == "waiting for the control plane")
        bench.control.reachable = True
        await bench.until(lambda state: version in state.ready)
        bench.control.reachable = False
        await bench.until(lambda state: "waiting" in bench.kinds()[-3:])
        assert version in bench.agent.state.ready, "what is attested stays in service"
        bench.control.reachable = True
        second = bench.adapter("retail_b", seed=2)
        await bench.until(lambda state: second in state.ready)


async def test_an_unchanged_finding_is_not_logged_at_every_heartbeat(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await bench.until(lambda state: version in state.ready)
        await asyncio.sleep(5 * QUICK.heartbeat)
        assert len(bench.control.attestations) == 1
        bench.clock.advance(QUICK.republish + 1)
        await bench.until(lambda state: len(bench.control.attestations) == 2)


async def test_a_boot_whose_names_are_used_up_is_recycled(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_loras=1, max_cpu_loras=2)
    async with bench.running():
        boots = set()
        for seed in (1, 2, 3):
            version = bench.adapter("bank_a", seed=seed)
            state = await bench.until(lambda state, version=version: version in state.ready)  # type: ignore[misc]
            boots.add(state.boot)
        assert len(boots) == 2
        assert state.retired == ()
        assert len(state.ready) == 2, "what the alias showed before stays ready for the way back"
    assert "recycling" in bench.kinds()


async def test_what_no_engine_knows_and_nobody_wants_leaves_the_node(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_loras=1, max_cpu_loras=2)
    bench.cache._limit = 1
    versions = []
    async with bench.running():
        for seed in (1, 2, 3, 4):
            versions.append(version := bench.adapter("bank_a", seed=seed))
            await bench.until(lambda state, version=version: version in state.ready)  # type: ignore[misc]
            present = {each for each in versions if bench.cache.folder(each).exists()}
            assert present == set(versions[-2:]), seed


async def test_a_revoked_version_is_no_longer_served(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await bench.until(lambda state: version in state.ready)
        bench.control.revoke(version)
        await bench.until(lambda state: not state.ready)
        assert version not in bench.control.slots
        assert bench.kinds().count("withdrawn") == 0


async def test_an_old_vllm_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, faults='{"version": "0.31.2"}')
    with pytest.raises(EngineUnsafeVersion, match=r"0\.31\.2"):
        await bench.agent.run()
    assert bench.control.announced == []


@pytest.mark.parametrize("foreign", [engine_name(Digest.of(b"x")), "gpt"])
async def test_a_vllm_that_serves_what_nobody_gave_it_is_refused(tmp_path: Path, foreign: str) -> None:
    """Whatever it is: under a name of ours it could answer for somebody."""
    bench = Bench(tmp_path, faults=json.dumps({"serves_too": foreign}))
    with pytest.raises(EngineStartFailed, match="names at its start that nobody gave it"):
        async with asyncio.timeout(30):
            await bench.agent.run()
    assert bench.control.announced == []
    assert group_of(bench) == []


async def test_files_that_are_not_the_registered_base_are_refused(tmp_path: Path) -> None:
    other = BASE.model_copy(update={"weights": Digest.of(b"other weights")})
    with pytest.raises(EngineBaseUnknown, match="weights differ"):
        await Bench(tmp_path, base=other).agent.run()
    stranger = BASE.model_copy(update={"name": "stranger"})
    with pytest.raises(EngineBaseUnknown, match="no base named 'stranger'"):
        await Bench(tmp_path, base=stranger).agent.run()


async def test_a_first_start_that_fails_is_told_with_the_log(tmp_path: Path) -> None:
    bench = Bench(tmp_path, more=("--no-such-flag",))
    with pytest.raises(EngineStartFailed, match="no-such-flag"):
        await bench.agent.run()


async def test_a_port_that_somebody_else_serves_is_refused(tmp_path: Path) -> None:
    first = Bench(tmp_path / "first")
    async with first.running():
        await first.until(lambda state: state.up)
        second = Bench(tmp_path, port=first.spec.port)
        with pytest.raises(EngineStartFailed, match="already answers"):
            await second.agent.run()


async def test_cancelling_the_agent_leaves_nothing_behind(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    running = asyncio.create_task(bench.agent.run())
    bench._task = running
    await bench.until(lambda state: state.up)
    members = group_of(bench)
    assert members
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [pid for pid in members if cmdline(pid)] == []
    assert not bench.control.announced[-1].up


def test_the_fakes_contract_and_fingerprint_belong_to_the_base() -> None:
    assert fake_contract(BASE).base == BASE.identity()
    assert isinstance(fake_fingerprint(BASE.identity(), Digest.of(b"w")), Fingerprint)
