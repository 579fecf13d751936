"""A version that ends the engine takes it away from nobody for ever."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from server.engines.suspects import Suspects
from server.testing.fake_model import fake_fingerprint, weights_of
from tests.support.adapters import write_adapter
from tests.unit.server.engines.bench import BASE, QUICK, Bench

ONE, OTHER, THIRD = Digest.of(b"one"), Digest.of(b"other"), Digest.of(b"third")


def ended_with(suspects: Suspects, *versions: Digest, now: float = 0.0) -> None:
    for version in versions:
        suspects.begins(version)
    suspects.fresh_boot(now)


def test_what_was_under_way_when_the_engine_ended_is_suspected_and_barred_the_second_time() -> None:
    suspects = Suspects(pause=60.0)
    suspects.begins(OTHER)
    suspects.survived(OTHER)
    suspects.begins(ONE)
    assert not suspects.is_suspect(ONE), "vLLM may yet answer"
    suspects.fresh_boot(1000.0)
    assert (suspects.is_suspect(ONE), suspects.is_suspect(OTHER)) == (True, False)
    assert not suspects.barred(1000.0, serving=True)
    ended_with(suspects, ONE, now=1010.0)
    assert suspects.barred(1010.0, serving=True)[ONE].until == math.inf
    assert suspects.barred(1010.0, serving=False)[ONE].until == 1070.0
    assert not suspects.barred(1070.0, serving=False), "nobody is harmed by another try"
    suspects.fresh_boot(1080.0)
    assert suspects.barred(1080.0, serving=True), "though that boot did not end for it"


def test_what_a_boot_that_ended_in_good_order_had_under_way_is_not_suspected() -> None:
    suspects = Suspects(pause=60.0)
    suspects.begins(ONE)
    suspects.all_survived()
    suspects.fresh_boot(0.0)
    assert not suspects.is_suspect(ONE)


def test_when_vllm_survives_one_that_was_barred_it_need_not_have_been_the_others() -> None:
    suspects = Suspects(pause=60.0)
    for _ in range(2):
        ended_with(suspects, ONE, OTHER)
    ended_with(suspects, THIRD)
    suspects.survived(THIRD)
    assert set(suspects.barred(0.0, serving=True)) == {ONE, OTHER}
    suspects.survived(ONE)
    assert not suspects.barred(0.0, serving=True)
    assert not suspects.is_suspect(OTHER)


def loads_by_boot(bench: Bench) -> list[list[Digest | None]]:
    boots: list[list[Digest | None]] = []
    for event in bench.events:
        if event.kind == "up":
            boots.append([])
        elif event.kind == "loading":
            boots[-1].append(event.version)
    return boots


@pytest.mark.parametrize("lingers", [False, True], ids=["at once", "after answers of 500"])
async def test_a_version_whose_load_ends_the_engine_ends_two_boots(tmp_path: Path, lingers: bool) -> None:
    write_adapter(tmp_path / "bank_b", BASE, seed=5)
    faults = {"deadly": weights_of(tmp_path / "bank_b"), "lingers": lingers}
    bench = Bench(tmp_path, cadence=QUICK, faults=json.dumps(faults))
    good = {bench.adapter(tenant, seed=seed) for tenant, seed in (("bank_a", 1), ("retail_c", 2))}
    bad = bench.adapter("bank_b", seed=5)
    async with bench.running():
        state = await bench.until(
            lambda state: set(state.ready) == good and state.is_ready and "twice" in state.not_ready[bad].text
        )
        first, *_, before, last = loads_by_boot(bench)
        assert set(last) == good, "what waited behind it is not suspected for that"
        assert first is before or before[-1] == bad, "after the others"
        looks = sum(event.kind == "attested" for event in bench.events)
        for _ in range(3):  # whatever comes later
            bench.control.point(bad, alias="again")
            await bench.until(lambda state: state.settled)
        assert (bench.agent.state.boot, sum(event.kind == "attested" for event in bench.events)) == (
            state.boot,
            looks,
        )


async def test_one_whose_own_prompts_end_it_does_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK, faults=json.dumps({"deadly_token": 999}))
    good = bench.adapter("bank_a", seed=1)
    folder = write_adapter(tmp_path / "bank_b", BASE, seed=2)
    genuine = fake_fingerprint(BASE.identity(), weights_of(folder))
    rows = tuple(probe.model_copy(update={"token_ids": (*probe.token_ids, 999)}) for probe in genuine.probes)
    bad = bench.adapter("bank_b", seed=2, fingerprint=genuine.model_copy(update={"probes": rows}))
    async with bench.running():
        await bench.until(
            lambda state: set(state.ready) == {good} and state.is_ready and "twice" in _why(state, bad)
        )
    assert bench.kinds().count("up") == 3


def _why(state: Any, version: Digest) -> str:
    why = state.not_ready.get(version)
    return "" if why is None else str(why.text)
