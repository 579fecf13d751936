"""What fails a look is asked again where vLLM only failed, and in a fresh boot where it was known before."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from registry.digests import Digest
from server.engines.chances import Chances
from server.engines.state import AgentState
from tests.support import neighbours
from tests.support.adapters import write_adapter
from tests.unit.server.engines.bench import BASE, QUICK, SLOW, Bench
from tests.unit.server.engines.test_sizing import SIGNER

VERSION, OTHER = Digest.of(b"version"), Digest.of(b"other")


def ready(*versions: Digest, other_than: str | None = None) -> Callable[[AgentState], bool]:
    def holds(state: AgentState) -> bool:
        return set(state.ready) == set(versions) and state.boot != other_than

    return holds


async def test_probes_that_vllm_fails_for_a_moment_end_no_boot_and_nobody_stays_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=replace(QUICK, tries=1000, heartbeat=3600))
    versions = [bench.adapter(f"tenant_{number}", seed=number) for number in range(3)]
    async with bench.running():
        first = (await bench.until(ready(*versions))).boot
        await bench.fault(unusable_probe=True)
        newest = bench.adapter("tenant_9", seed=9)
        await bench.until(
            lambda state: [("500" in why.text) for why in state.not_ready.values()] == [True] * 4
        )
        assert not bench.control.slots, "no slot that nobody can vouch for"
        await bench.fault(unusable_probe=False)
        assert (await bench.until(ready(*versions, newest))).boot == first
    assert "recycling" not in bench.kinds()


async def test_probes_that_vllm_goes_on_to_fail_end_the_boot_of_those_it_knew(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=replace(QUICK, tries=3, heartbeat=3600))
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(ready(version))).boot
        await bench.fault(unusable_probe=True)
        newest = bench.adapter("bank_b", seed=2)
        await bench.until(ready(version, newest, other_than=first))


async def test_an_outage_that_outlasts_two_boots_ends_without_people(tmp_path: Path) -> None:
    """Of an engine that never recognised anybody, and has had its fresh boot."""
    bench = Bench(
        tmp_path,
        cadence=replace(QUICK, tries=3, heartbeat=3600, afresh=(3600.0, 3600.0)),
        faults='{"unusable_probe": true}',
    )
    versions = [bench.adapter(f"tenant_{number}", seed=number) for number in range(3)]
    async with bench.running():
        await bench.until(lambda state: bench.kinds().count("up") == 2 and len(state.not_ready) == 3)
        waited = bench.kinds().count("waiting")
        await bench.until(lambda _: bench.kinds().count("waiting") > waited + 3 * 2 * 3)
        assert not bench.agent.state.is_ready, "of several tenants nothing is served: it is the engine"
        second = bench.agent.state.boot
        await bench.fault(unusable_probe=False)
        assert (await bench.until(ready(*versions))).boot == second
    assert bench.kinds().count("recycling") == 1


async def test_tokens_that_vllm_fails_to_tell_for_a_moment_are_asked_for_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK, faults='{"unusable_tokens": true}')
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        state = await bench.until(lambda state: version in state.not_ready and state.settled)
        assert "500" in state.not_ready[version].text
        await bench.fault(unusable_tokens=False)
        assert (await bench.until(ready(version))).boot == state.boot


async def test_what_was_recognised_and_no_longer_is_has_another_chance_in_a_fresh_boot(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    one, two = bench.adapter("bank_a", seed=1), bench.adapter("bank_b", seed=2)
    async with bench.running():
        first = (await bench.until(ready(one, two))).boot
        await bench.fault(adapters_are="others")
        await bench.until(ready(one, two, other_than=first))
    failed = [each for each in bench.control.attestations if not each.passed]
    assert {each.boot for each in failed} == {first}


async def test_what_never_was_itself_restarts_nobody(tmp_path: Path) -> None:
    write_adapter(tmp_path / "intruder", BASE, seed=9)
    bench = Bench(tmp_path, cadence=QUICK)
    good = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(ready(good))).boot
        await bench.fault(wrong_effect_load=str(tmp_path / "intruder"))
        bad = bench.adapter("bank_b", seed=2)
        await bench.until(lambda state: bad in state.not_ready and state.settled)
        for _ in range(5):  # whatever comes later
            bench.control.point(good)
            await bench.until(lambda state: state.settled)
        assert (bench.agent.state.boot, set(bench.agent.state.ready)) == (first, {good})


async def test_unless_another_engine_recognises_it(tmp_path: Path) -> None:
    write_adapter(tmp_path / "intruder", BASE, seed=9)
    bench = Bench(tmp_path, cadence=SLOW)
    good = bench.adapter("bank_a", seed=1)
    await neighbours.announce(bench.control, SIGNER, base=BASE.identity(), rank=64)
    async with bench.running():
        first = (await bench.until(ready(good))).boot
        (found,) = bench.control.attestations
        await neighbours.attest(bench.control, SIGNER, found)
        await bench.fault(wrong_effect_load=str(tmp_path / "intruder"))
        spoilt = bench.adapter("bank_b", seed=2)
        await bench.until(lambda state: spoilt in state.not_ready and state.settled)
        assert bench.agent.state.boot == first
        wrong = bench.control.attestations[-1]
        right = found.model_copy(
            update={"version": spoilt, "fingerprint": wrong.fingerprint, "contract": wrong.contract}
        )
        await neighbours.attest(bench.control, SIGNER, right)
        await bench.until(ready(good, spoilt, other_than=first))


async def test_for_one_tenants_versions_nobody_else_is_interrupted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK, max_loras=1, max_cpu_loras=2)
    good, odd = bench.adapter("bank_a", seed=1), bench.adapter("bank_b", seed=2)
    await neighbours.announce(bench.control, SIGNER, base=BASE.identity(), rank=64)
    async with bench.running():
        first = (await bench.until(ready(good, odd))).boot
        boot = bench.agent._life.boot  # type: ignore[union-attr]
        assert boot is not None
        boot._fail(odd, "it answers as nobody")
        found = next(each for each in bench.control.attestations if each.version == good)
        state = await bench.until(lambda state: "other engines" in state.waits_for)
        assert (state.boot, set(state.ready)) == (first, {good})
        await neighbours.attest(bench.control, SIGNER, found)
        await bench.until(ready(good, odd, other_than=first))


async def test_for_several_tenants_versions_at_once_the_boot_is_to_blame(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    good, *odd = (bench.adapter(f"tenant_{number}", seed=number) for number in range(3))
    async with bench.running():
        first = (await bench.until(ready(good, *odd))).boot
        boot = bench.agent._life.boot  # type: ignore[union-attr]
        assert boot is not None
        for version in odd:
            boot._fail(version, "it answers as nobody")
        await bench.until(ready(good, *odd, other_than=first))


def test_what_is_stuck_has_one_fresh_boot_until_it_is_recognised() -> None:
    chances = Chances(pauses=(60, 3600), now=lambda: 0.0)
    assert chances.left({VERSION, OTHER}) == {VERSION, OTHER}
    chances.spent({VERSION})
    assert chances.left({VERSION, OTHER}) == {OTHER}
    assert chances.had(VERSION)
    chances.recognised(VERSION)
    assert chances.left({VERSION}) == {VERSION}
    assert not chances.had(VERSION)


def test_the_next_chance_is_twice_as_far_away_whoever_it_is_for_and_an_old_one_is_forgotten() -> None:
    now = 0.0
    chances = Chances(pauses=(60, 3600), now=lambda: now)
    chances.recognised(VERSION)
    assert chances.knows(VERSION), "in whatever boot"
    assert not chances.knows(OTHER)
    waits = []
    for _ in range(8):
        chances.spent()
        spent = now
        while not chances.due:
            now += 30
        waits.append(now - spent)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    now += 3601
    chances.spent()
    now += 60
    assert chances.due


async def test_the_base_as_one_tenant_has_it_interrupts_nobody(tmp_path: Path) -> None:
    """Also where the version never came as far as vLLM."""
    bench = Bench(tmp_path, cadence=QUICK)
    good = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await bench.until(ready(good))).boot
        odd = [bench.adapter("bank_b", seed=seed) for seed in (2, 3)]
        await bench.until(ready(good, *odd))
        boot = bench.agent._life.boot  # type: ignore[union-attr]
        assert boot is not None
        boot._asked.discard(odd[0])
        for version in odd:
            boot._fail(version, "the base does not answer as the version's reference of it")
        state = await bench.until(lambda state: "other engines" in state.waits_for)
        assert (state.boot, set(state.ready)) == (first, {good})
