"""A version whose load ends the engine takes it away from nobody for ever."""

from dataclasses import replace
from pathlib import Path

from registry.digests import Digest
from server.engines.suspects import Suspects
from server.testing.fake_model import weights_of
from tests.support.adapters import write_adapter
from tests.unit.server.engines.bench import BASE, QUICK, Bench

ONE, OTHER = Digest.of(b"one"), Digest.of(b"other")


def test_what_was_being_loaded_when_the_engine_ended_is_suspected_and_waits_from_the_second_time_on() -> None:
    suspects = Suspects(pauses=(60.0, 3600.0))
    suspects.begins(ONE)
    suspects.begins(OTHER)
    suspects.over(OTHER)
    assert not suspects.suspects(ONE), "vLLM may yet answer"
    suspects.fresh_boot(1000.0)
    assert (suspects.suspects(ONE), suspects.suspects(OTHER)) == (True, False)
    assert not suspects.waiting(1000.0)
    suspects.begins(ONE)
    suspects.fresh_boot(1010.0)
    assert {version: pause.until for version, pause in suspects.waiting(1010.0).items()} == {ONE: 1130.0}
    assert not suspects.waiting(1130.0)
    suspects.fresh_boot(1140.0)
    assert not suspects.waiting(1140.0), "that boot did not end for it"
    suspects.over(ONE)
    assert not suspects.suspects(ONE)


async def test_a_version_whose_load_ends_the_engine_ends_two_boots_and_then_waits(tmp_path: Path) -> None:
    write_adapter(tmp_path / "bank_b", BASE, seed=5)
    deadly = weights_of(tmp_path / "bank_b")
    bench = Bench(
        tmp_path, cadence=replace(QUICK, afresh=(3600.0, 3600.0)), faults=f'{{"deadly": "{deadly}"}}'
    )
    good = {bench.adapter(tenant, seed=seed) for tenant, seed in (("bank_a", 1), ("retail_c", 2))}
    bad = bench.adapter("bank_b", seed=5)
    async with bench.running():
        await bench.until(
            lambda state: set(state.ready) == good and state.is_ready and "ended" in state.not_ready[bad].text
        )
        boots: list[list[Digest | None]] = []
        for event in bench.events:
            if event.kind == "up":
                boots.append([])
            elif event.kind == "loading":
                boots[-1].append(event.version)
        _, second, third = boots
        assert (set(second[:-1]), second[-1]) == (good, bad), "alone, after the others"
        assert set(third) == good, "what waited behind it is not suspected for that"
