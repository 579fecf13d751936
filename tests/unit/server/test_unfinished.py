"""Requests that a killed router left unfinished, as ``tenon log verify`` tells of them."""

import json
from pathlib import Path

import pytest

from registry.clock import ManualClock
from router.limits import Cadence
from router.records import RecordLog, Trace
from router.records.log import durable
from router.records.segments import Segments
from server.assembly.catalog import initialise
from tests.journeys.commands import tenon_here


@pytest.fixture
async def begun(tmp_path: Path) -> Path:
    """Twelve were begun and not ended; one was asked of two engines and ended; one had no intent."""
    workspace = initialise(tmp_path / "w")
    cadence = Cadence(segment_bytes=2000)
    folder = workspace.records / "router-0"
    log = RecordLog(
        Segments(folder, writer="router-0", segment_bytes=2000),
        writer="router-0",
        clock=ManualClock(),
        cadence=cadence,
    )
    await log.open()
    lines = [("intent", "rec-ended"), ("intent", "rec-ended"), ("outcome", "rec-ended"), ("outcome", "rec-x")]
    lines += [("intent", f"rec-begun-{number}") for number in range(12)]
    for event, name in lines:
        await durable(log.append(event, Trace(id=name, tenant="bank_a", engine="engine-0")))  # type: ignore[arg-type]
    await log.close()
    assert len(list(folder.glob("*.jsonl"))) > 1
    return workspace.root


def test_they_are_counted_and_named(begun: Path) -> None:
    said = tenon_here("log", "verify", "-w", str(begun))
    assert said.code == 0, said.err
    assert "12 requests have an intent and no outcome" in said.err
    assert "rec-begun-9" in said.err
    assert "rec-begun-10" not in said.err
    assert "rec-ended" not in said.err
    found = json.loads(tenon_here("log", "verify", "--json", "-w", str(begun)).out)
    assert found["ok"]
    assert [each["id"] for each in found["unfinished"]] == [f"rec-begun-{number}" for number in range(12)]
    assert {(each["tenant"], each["engine"]) for each in found["unfinished"]} == {("bank_a", "engine-0")}


def test_a_damaged_line_hides_no_other(begun: Path) -> None:
    file = sorted((begun / "records" / "router-0").glob("*.jsonl"))[-1]
    data = file.read_bytes()
    file.write_bytes(data[:-20] + b"!" + data[-19:])
    said = tenon_here("log", "verify", "--json", "-w", str(begun))
    assert said.code == 1
    assert len(json.loads(said.out)["unfinished"]) == 11


def test_a_workspace_without_records(tmp_path: Path) -> None:
    root = initialise(tmp_path / "w").root
    assert json.loads(tenon_here("log", "verify", "--json", "-w", str(root)).out)["unfinished"] == []
