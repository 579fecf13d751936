"""What the benchmark of engines counts as right, as a cliff and as shown."""

from typing import Any

import pytest

from bench.engines import adapters, page, saturation
from bench.engines.asking import Answer
from bench.engines.promotions import Lives
from bench.engines.truth import Truth
from registry.digests import Digest
from registry.fingerprint import Fingerprint, Probe
from server.demo.build_base import SHIPPED_BASE

ONE, OTHER, BASE = (Digest.of(name.encode()) for name in ("one", "other", "base"))
TOKENS = range(300, 330)


def fingerprint(shift: float) -> Fingerprint:
    own = tuple((token, -1.0 - shift - token / 1000) for token in TOKENS)
    base = tuple((token, -3.0 - token / 1000) for token in TOKENS)
    probes = (Probe(kind="random", token_ids=(5, 6, 7), own=own, base=base),)
    return Fingerprint(base=BASE, probes=probes, distance_to_base=2.0)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(SHIPPED_BASE, {ONE: fingerprint(0), OTHER: fingerprint(0.5)})


def test_words_are_of_the_version_whose_reference_they_show(truth: Truth) -> None:
    said = {text: value + 1e-5 for text, value in truth._own[str(ONE)][0].items()}
    assert truth.right(str(ONE), 0, said)
    assert not truth.right(str(OTHER), 0, said)  # the router says one, the words are the other's
    assert not truth.right(str(BASE), 0, said)


def test_words_that_show_nothing_are_nobodys(truth: Truth) -> None:
    said = truth._own[str(ONE)][0]
    assert not truth.right(str(ONE), 0, {})
    assert not truth.right(str(ONE), 0, {"\ufffd": -1.0})
    assert not truth.right(str(ONE), 0, {text: value + 0.01 for text, value in said.items()})


def answer(asked: float, ended: float, *, tokens: int = 0) -> Answer:
    return Answer(fault="", asked=asked, first=asked, ended=ended, tokens=tokens)


def test_only_what_was_live_meanwhile_may_answer() -> None:
    lives = Lives()
    lives.moved("a", ONE, 0.0)
    lives.moved("a", OTHER, 100.0)
    assert lives.allowed("a", answer(50, 99)) == {str(ONE)}
    assert lives.allowed("a", answer(99, 101)) == {str(ONE), str(OTHER)}
    assert lives.allowed("a", answer(101, 102)) == {str(ONE), str(OTHER)}  # the router has not heard
    assert lives.allowed("a", answer(150, 151)) == {str(OTHER)}


def test_tokens_count_while_they_are_measured() -> None:
    assert adapters.within(answer(0, 10, tokens=20), 5, 100) == 10
    assert adapters.within(answer(0, 10, tokens=20), 0, 4) == 8
    assert adapters.within(answer(20, 30, tokens=20), 0, 4) == 0


def test_a_cliff_is_beyond_the_slots() -> None:
    rates = {1: 10.0, 2: 20.0, 4: 40.0, 8: 38.0, 16: 20.0, 32: 30.0}
    figures = {str(count): {"tokens_per_second": rate} for count, rate in rates.items()}
    assert adapters.cliff(figures, 4) == 2.0
    assert adapters.cliff(figures, 8) == 1.9


def test_one_odd_run_does_not_decide_but_its_longest_wait_is_shown() -> None:
    runs = [
        {
            "tokens_per_second": rate,
            "requests": 10,
            "first_ms_p50": rate,
            "first_ms_most": wait,
            "adapters_unserved": unserved,
        }
        for rate, wait, unserved in ((9.0, 1.0, 0), (1.0, 5.0, 2), (10.0, 2.0, 0))
    ]
    found = adapters._summed_up(runs)
    assert (found["tokens_per_second"], found["first_ms_most"], found["adapters_unserved"]) == (9.0, 5.0, 2)


def run(rate: float) -> dict[str, float]:
    others = ("router_us_per_token", "router_us_per_request", "their_half_busy", "first_ms_p50")
    return {"tokens_per_second": rate, "tokens_per_engine_second": 2 * rate, **dict.fromkeys(others, 1.0)}


def test_neighbours_in_time_are_compared() -> None:
    """What makes one round faster makes both sides faster."""
    found = saturation._compared({"router": [run(9), run(9), run(18)], "direct": [run(10), run(10), run(20)]})
    assert found["ratio"] == 0.9
    found = saturation._compared({"router": [run(5), run(10)], "direct": [run(10), run(20)]})
    assert found["ratios"] == [0.5, 0.5]


def test_tokens_of_a_whole_answer_were_made_all_the_time() -> None:
    whole = Answer(fault="", asked=0, first=10, ended=10, tokens=20)
    assert adapters.within(saturation._made(whole, stream=False), 5, 100) == 10
    assert adapters.within(saturation._made(whole, stream=True), 5, 100) == 0


@pytest.mark.parametrize(
    ("cores", "engine", "others"),
    [({0}, {0}, {0}), ({0, 1}, {0}, {1}), ({2, 3, 5}, {2}, {3, 5})],
)
def test_the_engine_has_cores_of_its_own_where_there_are_two(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], engine: set[int], others: set[int]
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: cores)
    assert saturation.halves() == (engine, others)


def test_every_promise_has_its_row() -> None:
    spread = {"median": 1.0, "p95": 2.0, "most": 3.0}
    load = {"requests": 9, "streams": 4, "failed": 0, "wrong": 1}
    one = {"tokens_per_second": 5.0, "first_ms_most": 7.0}
    loads = {side: {str(count): one for count in adapters.COUNTS} for side in ("tenon", "plain vLLM")}
    result: dict[str, Any] = {
        "promotions": {
            **dict.fromkeys(("promotion_ms", "rollback_ms", "forward_ms", "cold_first_token_ms"), spread),
            "attestation_ms": {"1": 50.0, "8": 400.0},
            "load": load,
            "two_engines_start_s": 36.0,
            "steps_ms": {"prepared": 1.0},
            "cold_steps_ms": {"prepared": 1.0},
        },
        "adapters": {
            "slots": 4,
            "deep": loads,
            "spread": loads,
            "fleet": loads,
            "cliffs": {"deep": {"tenon": 1.0, "plain vLLM": 2.0}},
        },
        "saturation": {
            kind: saturation._compared({"router": [run(9.7)], "direct": [run(10)]})
            for kind in ("stream", "whole")
        },
    }
    rows = {row[0]: row[1:] for row in page.figures(result)}
    assert rows["of these wrong"] == ["0", "1"]
    assert rows["cliff beyond the slots, deep: tenon"] == ["1.3", "1.00"]
    assert rows["router / direct, tokens/s, streams"] == ["0.98", "0.970"]
    assert len(page.rates(result)) == len(adapters.KINDS) * len(adapters.COUNTS)
    assert page.plot(result).count("<svg") == 1
