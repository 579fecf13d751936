"""The figures of docs/methods.md: intervals, what counts as working, and that nobody edited the page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.methods.entries import ENTRIES, Entry
from bench.methods.measure import Interval, Row, interval
from bench.methods.page import page
from registry.evidence import Metric
from trainer.recipes import builtin

ROOT = Path(__file__).parents[3]
RESULTS = json.loads((ROOT / "bench/results/methods.json").read_text())
ROWS = [Row.from_json(row) for row in RESULTS["rows"]]


def test_the_page_is_what_the_results_say() -> None:
    assert (ROOT / "docs/methods.md").read_text() == page(ROWS)


def test_every_entry_was_measured_once() -> None:
    names = [entry.recipe for entry in ENTRIES]
    assert [row.recipe for row in ROWS] == names
    assert len(set(names)) == len(names)
    assert [row["works"] for row in RESULTS["rows"]] == [row.works for row in ROWS]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.recipe)
def test_what_is_measured_is_what_the_recipe_says_that_it_is_for(entry: Entry) -> None:
    comment = " ".join(
        line.lstrip("# ")
        for line in (builtin.FOLDER / f"{entry.recipe}.yaml").read_text().splitlines()
        if line.startswith("#")
    )
    targets = comment.partition("Target")[2].partition(". ")[0]
    assert f"`{entry.target}`" in targets


@pytest.mark.parametrize(
    ("share", "low", "high"),
    [(1.0, 0.9615, 1.0), (0.0, 0.0, 0.0385), (0.5, 0.4019, 0.5981)],
)
def test_a_share_has_wilsons_interval(share: float, low: float, high: float) -> None:
    """n = 96, from the formula in Wilson (1927): unlike the normal one it has a width at 0 and 1."""
    found = interval("policy", Metric(value=share, n=96, stderr=0.0))
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-4)


def test_a_mean_has_the_normal_interval() -> None:
    assert interval("words", Metric(value=10.0, n=96, stderr=1.0)) == Interval(10.0, 8.04, 11.96)


def test_a_method_works_beyond_its_interval_and_at_a_fair_price() -> None:
    row = replace(ROWS[0], moved=Interval(0.2, 0.1, 0.3), down=False, side={"valid_json": (1.0, 0.98)})
    assert row.works
    assert not replace(row, side={"valid_json": (1.0, 0.96)}).works
    assert not replace(row, moved=Interval(0.05, -0.05, 0.15)).works
    assert not replace(row, down=True).works
    assert replace(row, down=True, moved=Interval(-9.0, -11.0, -7.0)).works
