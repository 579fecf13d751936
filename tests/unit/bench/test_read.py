"""What the table of methods takes from the folder of a run."""

from pathlib import Path

from bench.methods.entries import Entry
from bench.methods.measure import read
from registry.digests import Digest
from tests.support.finished_run import ALARMED, DRIFT, run_in


def test_alarms_are_read_as_the_run_said_them(tmp_path: Path) -> None:
    row = read(Entry("sft", "SFT", "policy"), run_in(tmp_path / "run"), Digest.of(b"version"))
    (alarm,) = row.alarms
    assert alarm.startswith(f"step {ALARMED}: {DRIFT}")
