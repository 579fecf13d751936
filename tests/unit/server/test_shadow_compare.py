"""``tenon shadow compare``: records that a router wrote, read in pairs."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from registry.names import AdapterName
from router.limits import Cadence
from router.records import RecordLog, Trace
from router.records.log import durable
from router.records.segments import Segments
from router.testing import FakeAnswer, honest
from server.shadows.compare import Side, compare
from tests.journeys.commands import tenon_here
from tests.unit.router.driving import House, until
from tests.unit.router.test_shadowing import Shadowed

DESK = AdapterName("bank_a", "desk")


@pytest.fixture
async def shadowed(tmp_path: Path) -> AsyncIterator[Shadowed]:
    house = House(tmp_path)
    found = Shadowed(house)
    await house.app.start()
    await house.publish()
    yield found
    await house.app.stop()


async def ask(shadowed: Shadowed, number: int) -> None:
    await shadowed.house.ask(shadowed.secret)
    await until(lambda: len(shadowed.copies()) == number)


async def test_a_router_and_its_shadow(shadowed: Shadowed, tmp_path: Path) -> None:
    def refuse(_: dict[str, Any]) -> FakeAnswer:
        return FakeAnswer(status=500, pieces=[b"{}"])

    for number, script in enumerate([honest("fine"), honest("fine"), honest("fine!"), refuse], start=1):
        shadowed.replies[shadowed.shadow] = script
        await ask(shadowed, number)
    (found,) = compare(tmp_path, DESK).comparisons
    assert (found.alias, found.version, found.shadow) == ("live", shadowed.stable, shadowed.shadow)
    assert (found.pairs, found.agreed, found.differed, found.agreement) == (4, 2, 1, 2 / 3)
    assert (found.primaries.completion_tokens, found.shadows.completion_tokens) == (12, 9)
    assert (found.primaries.errors, found.shadows.errors) == ({}, {"engine_error": 1})
    assert compare(tmp_path, DESK, alias="live").comparisons == (found,)
    assert compare(tmp_path, DESK, alias="next").comparisons == ()
    assert compare(tmp_path, AdapterName("retail_b", "desk")).comparisons == ()
    shown = tenon_here("shadow", "compare", "bank_a/desk", "--records", str(tmp_path))
    assert shown.code == 0, shown.err
    assert "66.7% of 3" in shown.out
    assert "engine_error 1" in shown.out
    assert "left out" not in shown.err
    data = json.loads(
        tenon_here("shadow", "compare", "bank_a/desk:live", "--json", "--records", str(tmp_path)).out
    )
    (each,) = data["comparisons"]
    assert (each["shadow"]["version"], each["pairs"], data["unpaired"]) == (shadowed.shadow, 4, 0)
    assert each["answered"]["milliseconds"]["p50"] == 0


async def written(folder: Path, traces: Sequence[Trace]) -> None:
    log = RecordLog(
        Segments(folder / "w", writer="w", segment_bytes=3000),
        writer="w",
        clock=House(folder / "unused").clock,
        cadence=Cadence(),
    )
    await log.open()
    for trace in traces:
        await durable(log.append("outcome", trace))
    await log.close()


def trace(name: str, version: str, ms: int = 5, shadow_of: str | None = None, **more: Any) -> Trace:
    usual: dict[str, Any] = {
        "tenant": "bank_a", "adapter": "desk", "alias": "live", "status": 200,
        "started_at": "2026-03-01T00:00:00.000000Z", "agrees": None if shadow_of is None else True,
    }  # fmt: skip
    found = usual | more
    return Trace(id=name, version=Digest.of(version.encode()), milliseconds=ms, shadow_of=shadow_of, **found)


async def test_latency_since_and_what_has_no_pair(tmp_path: Path) -> None:
    early: dict[str, Any] = {"started_at": "2026-01-01T00:00:00.000000Z"}
    await written(
        tmp_path,
        [
            trace("rec-0", "old", **early),
            trace("rec-s0", "new", shadow_of="rec-0", **early),
            *(trace(f"rec-{n}", "old", ms=n) for n in range(1, 101)),
            *(trace(f"rec-s{n}", "new", ms=2 * n, shadow_of=f"rec-{n}") for n in range(1, 101)),
            trace("rec-lost", "new", shadow_of="rec-elsewhere"),
            trace("rec-other", "old", adapter="till"),
            trace("rec-so", "new", adapter="till", shadow_of="rec-other"),
        ],
    )
    found = compare(tmp_path, DESK, since=datetime.fromisoformat("2026-02-01T00:00:00+00:00"))
    (pair,) = found.comparisons
    assert (pair.pairs, found.unpaired) == (100, 1)
    assert [pair.primaries.quantile(share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert [pair.shadows.quantile(share) for share in (0.5, 0.95, 0.99)] == [100, 190, 198]
    assert compare(tmp_path, DESK).comparisons[0].pairs == 101
    shown = tenon_here("shadow", "compare", "bank_a/desk", "--records", str(tmp_path))
    assert "1 shadows are left out" in shown.err


async def test_a_refusal_is_an_error_and_no_latency(tmp_path: Path) -> None:
    await written(
        tmp_path,
        [
            trace("rec-1", "old", status=503, code="queue_full"),
            trace("rec-s1", "new", shadow_of="rec-1", status=504, code="engine_timeout", agrees=None),
        ],
    )
    (pair,) = compare(tmp_path, DESK).comparisons
    assert (pair.agreement, pair.primaries.quantile(0.5)) == (None, None)
    assert (pair.primaries.errors, pair.shadows.errors) == ({"queue_full": 1}, {"engine_timeout": 1})


def test_quantiles_are_latencies_that_were_seen() -> None:
    side = Side(milliseconds=[30, 10, 20])
    assert [side.quantile(share) for share in (0.01, 0.5, 0.67, 1)] == [10, 20, 30, 30]


def test_nothing_to_compare_and_names_that_are_none(tmp_path: Path) -> None:
    said = tenon_here("shadow", "compare", "bank_a/desk", "--records", str(tmp_path))
    assert (said.code, said.out) == (1, "")  # a misspelled name must not look like one without shadows
    assert "no request of bank_a/desk is on record" in said.err
    assert "cannot be read" in tenon_here("shadow", "compare", "bank_a/desk", "--records", "/nowhere").err
    assert tenon_here("shadow", "compare", "desk", "--records", str(tmp_path)).code != 0
    assert tenon_here(
        "shadow", "compare", "bank_a/desk", "--since", "yesterday", "--records", str(tmp_path)
    ).code != 0  # fmt: skip
