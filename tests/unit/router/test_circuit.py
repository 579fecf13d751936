"""A circuit opens on what engines do to connections, and on nothing that a request can bring about alone."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.digests import Digest
from router.circuit import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Circuit, Circuits
from router.errors import (
    ClientGone,
    EngineAnswered,
    EngineAnswerMismatch,
    EngineFailed,
    EngineInterrupted,
    EngineRejectedRequest,
    EngineStopped,
    EngineTimeout,
    EngineUnavailable,
    NothingSent,
    OutputInvalid,
    OutputTruncated,
    RecordUnavailable,
)
from router.limits import Limits
from router.places import Place
from router.surfaces.events import MOST_EVENT_BYTES
from router.testing import FakeAnswer, chunk, completion, honest
from tests.unit.router.driving import QUESTION, House

HERE = Place("engine-0", "boot-1", "http://engine-0", Digest.of(b"finding"))
OTHER = Place("engine-1", "boot-1", "http://engine-1", Digest.of(b"finding"))


class Bench:
    def __init__(self) -> None:
        self.now = 50.0
        self.circuits = Circuits(lambda: self.now)

    def fail(
        self,
        times: int = 1,
        error: type[BaseException] = NothingSent,
        at: Place = HERE,
        tenant: str | None = None,
    ) -> None:
        for _ in range(times):
            self.circuits.asked(at, tenant)
            self.circuits.failed(at, error(), tenant, self.now)

    def is_open(self, tenant: str | None = None) -> bool:
        return not self.circuits.admits(HERE, tenant)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    "error",
    [NothingSent, EngineUnavailable, EngineTimeout, EngineFailed, EngineInterrupted, EngineAnswerMismatch],
)
def test_what_an_engine_does_opens_its_circuit_and_no_other(bench: Bench, error: type[Exception]) -> None:
    bench.fail(FAILURES - 1, error)
    assert not bench.is_open()
    assert bench.circuits.states() == {}
    bench.fail(1, error)
    assert bench.is_open()
    assert bench.circuits.admits(OTHER)
    assert bench.circuits.states() == {"engine-0": Circuit.OPEN}


@pytest.mark.parametrize(
    "error",
    [
        EngineRejectedRequest, EngineAnswered, EngineStopped, OutputInvalid, OutputTruncated, ClientGone,
        RecordUnavailable, asyncio.CancelledError, ValueError,
    ],
)  # fmt: skip
def test_what_a_request_or_its_client_does_opens_nothing(bench: Bench, error: type[BaseException]) -> None:
    bench.fail(100, error)
    assert not bench.is_open()


@pytest.mark.parametrize(
    "error", [EngineUnavailable, EngineTimeout, EngineFailed, EngineInterrupted, EngineAnswerMismatch]
)
def test_what_one_tenant_alone_meets_keeps_that_tenant_out_and_no_other(
    bench: Bench, error: type[BaseException]
) -> None:
    bench.fail(FAILURES, error, tenant="bank_a")
    assert (bench.is_open("bank_a"), bench.is_open("shop_b")) == (True, False)
    assert bench.circuits.states() == {"engine-0": Circuit.HALF_OPEN}
    bench.circuits.asked(HERE, "shop_b")  # no probe: it delays none of bank_a's
    bench.now += FIRST_PAUSE
    assert not bench.is_open("bank_a")
    bench.circuits.asked(HERE, "bank_a")
    assert bench.is_open("bank_a")
    bench.fail(1, error, tenant="shop_b")  # now it is not one tenant's doing any more
    assert bench.is_open("bank_a")
    assert bench.is_open("shop_b")
    assert bench.is_open("third_c")
    assert bench.circuits.states() == {"engine-0": Circuit.OPEN}


def test_another_tenants_success_lets_the_one_in_again(bench: Bench) -> None:
    bench.fail(FAILURES, EngineTimeout, tenant="bank_a")
    bench.circuits.succeeded(HERE)
    assert not bench.is_open("bank_a")


def test_an_engine_that_takes_no_connection_is_nobodys_doing(bench: Bench) -> None:
    bench.fail(FAILURES, NothingSent, tenant="bank_a")
    assert bench.is_open("shop_b")


@pytest.mark.parametrize("answer", [None, EngineAnswered])
def test_who_waits_in_vain_while_others_are_answered_says_nothing_of_the_engine(
    bench: Bench, answer: type[BaseException] | None
) -> None:
    began = bench.now
    bench.now += 100
    if answer is None:
        bench.circuits.succeeded(HERE)
    else:
        bench.fail(1, answer)
    bench.now += 200
    for tenant in ("bank_a", "shop_b", "third_c"):
        bench.circuits.failed(HERE, EngineTimeout(), tenant, began)
    assert not bench.is_open("bank_a")
    for tenant in ("bank_a", "shop_b", "third_c"):  # of whom nobody was answered since
        bench.circuits.failed(HERE, EngineTimeout(), tenant, bench.now - 150)
    assert bench.is_open("bank_a")


def test_anybodys_success_ends_a_row_of_failures(bench: Bench) -> None:
    for _ in range(5):
        bench.fail(FAILURES - 1)
        bench.circuits.succeeded(HERE)
    assert not bench.is_open()


def test_after_the_pause_one_probe_at_a_time_is_let_through(bench: Bench) -> None:
    bench.fail(FAILURES)
    bench.now += FIRST_PAUSE - 0.001
    assert bench.is_open()
    bench.now += 0.001
    assert not bench.is_open()
    assert bench.circuits.states() == {"engine-0": Circuit.HALF_OPEN}
    bench.circuits.asked(HERE)
    assert bench.is_open()
    bench.circuits.succeeded(HERE)
    assert not bench.is_open()
    bench.fail(FAILURES - 1)  # the row starts again
    assert not bench.is_open()


def test_a_probe_that_nobody_hears_of_again_holds_nothing_up(bench: Bench) -> None:
    bench.fail(FAILURES)
    bench.now += FIRST_PAUSE
    bench.circuits.asked(HERE)  # and then its client hangs up, or the engine never answers
    bench.now += FIRST_PAUSE
    assert not bench.is_open()


def test_each_failed_probe_doubles_the_pause_up_to_a_bound(bench: Bench) -> None:
    bench.fail(FAILURES)
    pauses = []
    for _ in range(8):
        start = bench.now
        while bench.is_open():
            bench.now += 0.5
        pauses.append(bench.now - start)
        bench.fail()
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert pauses[-1] == LONGEST_PAUSE


def test_requests_that_were_under_way_when_it_opened_say_nothing_new(bench: Bench) -> None:
    bench.fail(FAILURES)
    for _ in range(50):
        bench.circuits.failed(HERE, EngineTimeout())
    bench.now += FIRST_PAUSE
    assert not bench.is_open()


def test_an_engine_that_was_started_again_starts_without_a_past(bench: Bench) -> None:
    bench.fail(FAILURES)
    again = Place("engine-0", "boot-2", "http://engine-0", HERE.attestation)
    assert bench.circuits.admits(again)
    bench.fail(FAILURES, at=again)
    assert not bench.circuits.admits(again)


def test_engines_that_are_gone_are_forgotten(bench: Bench) -> None:
    for number in range(100):
        bench.fail(FAILURES, at=Place(f"pod-{number}", "boot-1", "http://pod", HERE.attestation))
    assert len(bench.circuits.states()) == 100
    bench.now += 1000
    bench.fail()
    assert bench.circuits.states() == {}


ERROR = b'data: {"error":{"message":"of the request","code":400}}\n\n'
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def calling(body: dict[str, Any], call: dict[str, Any]) -> bytes:
    return chunk(body, "").replace(b'"delta":{', b'"delta":{"tool_calls":' + orjson.dumps([call]) + b",")


ANSWERED: dict[str, Any] = {
    "error frame": lambda body: [chunk(body, "x"), ERROR, b"data: [DONE]\n\n"],
    "aborted": lambda body: [chunk(body, "x"), chunk(body, "", finish="abort")],
    "long stream": lambda body: [chunk(body, "x" * 60_000), chunk(body, "x" * 60_000)],
    "long event": lambda body: [b"data: " + b"x" * (MOST_EVENT_BYTES + 1)],
    "long answer": lambda body: [orjson.dumps(completion(body, "x" * 110_000))],
    "error in a whole answer": lambda body: [b'{"error":{"code":400}}'],
    "calls without end": lambda body: [
        calling(body, {"index": at, "function": {"name": "f", "arguments": "{}"}}) for at in range(130)
    ],
    "calls without number": lambda body: [calling(body, {"index": "0", "function": {"name": "f"}})],
    "calls of nothing": lambda body: [calling(body, {"index": 0})],
    "arguments without a call": lambda body: [calling(body, {"index": 0, "function": {"arguments": "{}"}})],
    "arguments that are none": lambda body: [
        calling(body, {"index": 0, "function": {"name": "f", "arguments": 7}})
    ],
    "whole calls of nothing": lambda body: [
        orjson.dumps(completion(body, choices=[{"index": 0, "message": {"tool_calls": [{}]}}]))
    ],
    "no end": lambda body: [orjson.dumps(completion(body)).replace(b'"stop"', b"null")],
}


@pytest.mark.parametrize("what", ANSWERED)
async def test_one_tenant_s_answers_take_no_engine_from_another(tmp_path: Path, what: str) -> None:
    limit = 4 * MOST_EVENT_BYTES if what == "long event" else 100_000
    house = House(tmp_path, limits=Limits(answer_bytes=limit))
    house.scene.engine()
    await house.app.start()
    try:
        bank, shop = house.scene.serve("bank_a", tools=("*",)), house.scene.serve("shop_b")
        await house.publish()
        streams = b"data: " in ANSWERED[what]({"model": "m"})[0]
        house.engines.script = lambda body: FakeAnswer(200, ANSWERED[what](body))
        for _ in range(FAILURES):
            call = house.call(bank, {**QUESTION, "stream": streams, "tools": TOOLS})
            assert b"engine_" in (await call.done()).body
            assert house.app._pipeline.attempts.placement.circuits._troubles == {}
        house.engines.script = honest()
        assert (await house.ask(shop)).status == 200
    finally:
        await house.app.stop()


async def test_an_adapter_whose_numbers_are_none_takes_no_engine_from_another(house: House) -> None:
    bank, shop = house.scene.serve("bank_a"), house.scene.serve("shop_b")
    await house.publish()
    data = [{"object": "embedding", "index": 0, "embedding": [None]}]
    house.engines.script = lambda body: FakeAnswer(
        200, [orjson.dumps({"object": "list", "model": body["model"], "data": data})]
    )
    for _ in range(FAILURES):
        call = house.call(bank, {"model": "assistant", "input": ["a"]}, path="/v1/embeddings")
        assert (await call.done()).status == 502
    house.engines.script = honest()
    assert (await house.ask(shop)).status == 200
