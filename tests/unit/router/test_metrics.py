"""What Prometheus is told: numbers that add up, in a bounded number of series."""

import timeit
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from router import metrics
from router.metrics import Metrics
from router.moments import Moments
from router.records.record import Trace
from router.series import Histogram, labels_of
from router.testing import FakeAnswer, stream
from tests.unit.router.driving import House


def read(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample, as prometheus_client's own parser understands it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(text: bytes, name: str, **labels: str) -> float:
    return read(text)[name, frozenset(labels.items())]


def moments(**changes: float) -> Moments:
    """0.5 s in the client's hands, 0.25 s in the queue, 2 s at the engine, 0.25 s in the router."""
    usual = {"begun": 10.0, "read": 10.5, "asked": 10.875, "first": 11.375, "last": 12.875, "ended": 13.0,
             "queued": 0.25}  # fmt: skip
    return Moments(**(usual | changes))  # type: ignore[arg-type]


def test_each_part_of_a_request_is_put_where_it_belongs() -> None:
    told = Metrics(name_tenants=True)
    told.finished(
        Trace(id="r", tenant="a", model="m", adapter="d", engine="e", stream=True, status=200,
              prompt_tokens=7, completion_tokens=4),
        moments(retries=2),
    )  # fmt: skip
    text = told.render()
    name = {"tenant": "a", "model": "m", "adapter": "d"}
    assert value(text, "tenon_requests_total", **name, code="ok") == 1
    assert value(text, "tenon_tokens_total", **name, kind="prompt") == 7
    assert value(text, "tenon_tokens_total", **name, kind="completion") == 4
    assert value(text, "tenon_model_seconds_sum", **name) == 3
    assert value(text, "tenon_model_first_token_seconds_sum", **name) == 1.375
    assert value(text, "tenon_request_seconds_sum", stream="true") == 3
    assert value(text, "tenon_request_seconds_count", stream="false") == 0
    assert value(text, "tenon_added_seconds_sum", stream="true") == 0.25
    assert value(text, "tenon_queue_seconds_sum") == 0.25
    assert value(text, "tenon_engine_seconds_sum", engine="e") == 2
    assert value(text, "tenon_engine_first_token_seconds_sum", engine="e") == 1.375
    assert value(text, "tenon_engine_between_tokens_seconds_sum", engine="e") == 0.5
    assert value(text, "tenon_engine_retries_total", engine="e") == 2


def test_a_refusal_has_its_code_and_no_engine() -> None:
    told = Metrics(name_tenants=True)
    told.finished(Trace(id="r", status=401, code="invalid_api_key"), Moments(1.0, read=1.5, ended=2.0))
    text = told.render()
    assert value(text, "tenon_requests_total", tenant="", model="", adapter="", code="invalid_api_key") == 1
    assert value(text, "tenon_added_seconds_sum", stream="false") == 0.5
    assert b"engine=" not in text


def test_buckets_add_up() -> None:
    found = Histogram((1, 2))
    for each in (0.5, 1, 1.5, 99):
        found.observe(each)
    assert list(found.samples("x", 'a="b"')) == [
        'x_bucket{a="b",le="1"} 2', 'x_bucket{a="b",le="2"} 3', 'x_bucket{a="b",le="+Inf"} 4',
        'x_sum{a="b"} 102.0', 'x_count{a="b"} 4',
    ]  # fmt: skip


def test_labels_are_escaped() -> None:
    text = f"x{{{labels_of({'a': 'q' + chr(34) + chr(92) + chr(10)})}}} 1\n".encode()
    assert read(text) == {("x", frozenset({("a", 'q"\\\n')})): 1}


def test_names_beyond_the_bound_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_NAMES", 3)
    monkeypatch.setattr(metrics, "MOST_ENGINES", 2)
    told = Metrics(name_tenants=True)
    for number in range(9):
        told.finished(
            Trace(id="r", tenant=f"t{number}", model="m", adapter="d", engine=f"e{number}"), moments()
        )
    text = told.render()
    other = {"tenant": "other", "model": "other", "adapter": "other", "code": "ok"}
    assert value(text, "tenon_requests_total", **other) == 6
    assert value(text, "tenon_engine_seconds_count", engine="other") == 7
    # those that came first keep their own
    told.finished(Trace(id="r", tenant="t0", model="m", adapter="d", engine="e0"), moments())
    name = {"tenant": "t0", "model": "m", "adapter": "d", "code": "ok"}
    assert value(told.render(), "tenon_requests_total", **name) == 2
    # nobody's requests are told apart from it even then
    told.finished(Trace(id="r", code="missing_api_key"), Moments(1.0, ended=2.0))
    nobody = {"tenant": "", "model": "", "adapter": "", "code": "missing_api_key"}
    assert value(told.render(), "tenon_requests_total", **nobody) == 1


def test_without_a_token_nobody_is_named() -> None:
    told = Metrics(name_tenants=False)
    for tenant in ("bank_a", "retail_b"):
        told.finished(Trace(id="r", tenant=tenant, model="m", adapter="d"), moments())
    text = told.render()
    assert value(text, "tenon_requests_total", tenant="", model="", adapter="", code="ok") == 2
    assert b"bank_a" not in text
    assert b"retail_b" not in text


def test_every_name_is_known_before_anything_happened() -> None:
    told = Metrics(name_tenants=True)
    before = told.names()
    told.finished(Trace(id="r", tenant="a", model="m", adapter="d", engine="e", stream=True), moments())
    assert told.names() == before
    assert {name for name, _ in read(told.render())} <= before


def test_finishing_a_request_is_cheap() -> None:
    """The promise is 5 µs; the bound here leaves room for a slow machine, and still notices labels that are
    formatted or children that are looked up for each value."""
    told = Metrics(name_tenants=True)
    trace = Trace(id="r", tenant="a", model="m", adapter="d", engine="e", stream=True, prompt_tokens=7,
                  completion_tokens=4)  # fmt: skip
    found = moments()
    best = min(timeit.repeat(lambda: told.finished(trace, found), number=2000, repeat=7)) / 2000
    assert best < 15e-6, f"{best * 1e6:.1f} µs"


async def test_a_stream_leaves_its_times(house: House, bank: str) -> None:
    def slow(body: dict[str, object]) -> FakeAnswer:
        house.now += 0.5
        return FakeAnswer(200, stream(body, "abcd"))

    house.engines.script = slow
    await house.ask(bank, {"stream": True})
    text = (await house.get("/metrics")).body
    assert value(text, "tenon_engine_first_token_seconds_sum", engine="engine-0") == 0.5
    assert value(text, "tenon_engine_seconds_sum", engine="engine-0") == 0.5
    assert value(text, "tenon_added_seconds_sum", stream="true") == 0
    assert value(text, "tenon_engine_circuit", engine="engine-0") == 0
    assert value(text, "tenon_engine_requests_in_flight", engine="engine-0") == 0
    assert value(text, "tenon_records_total") >= 1


async def test_every_page_parses(tmp_path: Path) -> None:
    house = House(tmp_path, metrics_token="scrape")
    house.scene.engine()
    bank = house.scene.serve("bank_a")
    await house.app.start()
    await house.publish()
    await house.ask(bank)
    found = await house.get("/metrics", "scrape")
    assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = found.body
    assert (
        value(text, "tenon_requests_total", tenant="bank_a", model="assistant", adapter="desk", code="ok")
        == 1
    )
    await house.app.stop()
