"""The checks of a step, over plain values."""

from datetime import UTC, datetime
from typing import Any

import pytest

from registry.digests import Digest
from server.engines.plugin.reading import Reading
from server.engines.plugin.violations import GuardRefusal, GuardViolation, Violation
from server.engines.plugin.watch import Built, Named, Watch

A, B = Named(1, "tenon-a"), Named(2, "tenon-b")
READ = {
    1: Reading("tenon-a", Digest.of(b"a")),
    2: Reading("tenon-b", Digest.of(b"b")),
}


class Bench:
    """One engine with two slots, driven step by step."""

    def __init__(self, *, isolate_base: bool = True) -> None:
        self.counts: dict[str, int] = {}
        self.found: list[Violation] = []
        self.registered: dict[int, object] = dict(READ)
        self.layout: list[int | None] = [1, 2]
        self.watch = Watch(
            isolate_base=isolate_base,
            tally=self,
            report=self.found.append,
            now=lambda: datetime(2026, 1, 2, tzinfo=UTC),
        )
        for named in (A, B):
            self.watch.loaded(named, READ[named.id])

    def add(self, field: str, amount: int = 1) -> None:
        self.counts[field] = self.counts.get(field, 0) + amount

    def step(self, requests: dict[str, Named | None], *, new: bool = True, **other: Any) -> None:
        """A right step, but for ``other``."""
        ids = [0 if named is None else named.id for named in requests.values()]
        scheduled = dict.fromkeys(requests, 1)
        self.watch.begin(list(requests.items()) if new else [], other.get("finished", ()), scheduled)
        if other.get("rows", True):
            self.watch.rows(other.get("order", list(requests)), other.get("ids", ids))
        self.watch.check(
            other.get("batch", [named for named in requests.values() if named is not None]),
            tokens=other.get("tokens", ids),
            prompts=other.get("prompts", ids),
            built=other.get("built", Built(ids, ids, tuple(self.layout))),
            layout=self.layout,
            registered=self.registered.get,
        )
        self.watch.end(adapters=True)

    def refused(self, kind: str) -> Violation:
        (violation,) = self.found
        assert violation.kind == kind
        assert self.counts["violations"] == 1
        with pytest.raises(GuardViolation):  # and nothing goes on
            self.watch.begin([], [], {"z": 1})
        return violation


def test_right_steps_pass_and_are_counted() -> None:
    bench = Bench()
    bench.step({"x": A, "y": B})
    bench.step({"x": A, "y": B}, new=False)
    bench.step({"y": B}, new=False, finished=["x"])
    bench.step({"w": None}, finished=["y"])
    assert bench.found == []
    assert bench.counts["steps"] == 4
    assert bench.counts["checked"] == 6
    assert bench.counts["loads"] == 2


@pytest.mark.parametrize(
    "built",
    [
        None,
        Built([1, 2], [1, 2], (2, 1)),
        Built([1, 2], [1, 2], (1, None)),
        Built([2, 1], [1, 2], (1, 2)),
        Built([1, 2], [2, 1], (1, 2)),
    ],
)
def test_indices_made_for_something_else(built: Built | None) -> None:
    bench = Bench()
    with pytest.raises(GuardViolation, match="metadata"):
        bench.step({"x": A, "y": B}, built=built)
    bench.refused("metadata")


def test_the_case_of_47724() -> None:
    """The batch is as before, a load between two steps moved the slots, the indices were not made anew."""
    bench = Bench()
    bench.step({"x": A})
    bench.layout = [2, 1]
    with pytest.raises(GuardViolation):
        bench.step({"x": A}, new=False, built=Built([1], [1], (1, 2)))
    violation = bench.refused("metadata")
    assert violation.step == 2


def test_slots_that_move_under_a_running_request_are_counted() -> None:
    bench = Bench()
    bench.step({"x": A})
    bench.layout = [2, 1]
    bench.step({"x": A}, new=False)
    assert bench.counts["reassignments"] == 2
    bench.step({"w": None}, finished=["x"])
    bench.layout = [1, 2]
    bench.step({"v": A})
    assert bench.counts["reassignments"] == 2  # nobody was running


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ({"ids": [2, 1]}, "row"),
        ({"ids": [1, 0]}, "row"),
        ({"order": ["y", "x"]}, "row"),
        ({"order": ["x", "ghost"]}, "row"),
        ({"order": ["x"], "ids": [1]}, "row"),
        ({"batch": [A]}, "row"),
        ({"batch": [A, Named(2, "tenon-c")]}, "identity"),
        ({"batch": [A, B, Named(3, "tenon-a")]}, "identity"),
        ({"rows": False}, "unwatched"),
    ],
)
def test_rows_and_names_that_do_not_fit(other: dict[str, Any], kind: str) -> None:
    bench = Bench()
    with pytest.raises(GuardViolation):
        bench.step({"x": A, "y": B}, **other)
    bench.refused(kind)


@pytest.mark.parametrize("layout", [[1, None], [1, 1], [None, 1]])
def test_an_adapter_in_no_slot_or_in_two(layout: list[int | None]) -> None:
    bench = Bench()
    bench.layout = layout
    with pytest.raises(GuardViolation):
        bench.step({"x": B} if layout.count(1) == 1 else {"x": A})
    assert bench.refused("slot").names in (("tenon-a",), ("tenon-b",))


@pytest.mark.parametrize("other", [None, Reading("tenon-a", Digest.of(b"a")), READ[2]])
def test_registered_weights_that_nobody_verified(other: object) -> None:
    bench = Bench()
    bench.registered[1] = other
    with pytest.raises(GuardViolation):
        bench.step({"x": A})
    assert bench.refused("weights").slot == 0


def test_the_base_beside_an_adapter() -> None:
    bench = Bench()
    bench.step({"w": None})
    with pytest.raises(GuardViolation):
        bench.step({"x": A, "w": None})
    bench.refused("base")


def test_where_the_base_may_stand_beside_an_adapter() -> None:
    bench = Bench(isolate_base=False)
    bench.step({"x": A, "w": None})
    assert bench.found == []


def test_a_step_that_nobody_checked() -> None:
    bench = Bench()
    bench.watch.begin([("x", A)], [], {"x": 1})
    with pytest.raises(GuardViolation):
        bench.watch.end(adapters=True)
    bench.refused("unwatched")


def test_an_engine_without_slots_has_nothing_to_check() -> None:
    bench = Bench()
    bench.watch.begin([("x", None)], [], {"x": 1})
    bench.watch.end(adapters=False)
    assert bench.found == []


def test_a_request_cannot_change_its_adapter() -> None:
    bench = Bench()
    bench.step({"x": A})
    with pytest.raises(GuardViolation):
        bench.step({"x": A}, new=False, ids=[2], tokens=[2], prompts=[2], batch=[B])
    bench.refused("row")


def test_outside_a_step_a_load_is_refused_and_the_engine_goes_on() -> None:
    bench = Bench()
    for named, inplace in ((A, True), (Named(1, "tenon-c"), False), (Named(3, "tenon-a"), False)):
        with pytest.raises(GuardRefusal):
            bench.watch.admit(named, inplace=inplace)
    bench.watch.admit(A, inplace=False)
    bench.watch.admit(Named(3, "tenon-c"), inplace=False)
    assert bench.counts["refusals"] == 3
    bench.step({"x": A})
    assert bench.found == []


def test_inside_a_step_the_same_ends_the_engine() -> None:
    bench = Bench()
    bench.watch.begin([("x", A)], [], {"x": 1})
    with pytest.raises(GuardViolation):
        bench.watch.admit(A, inplace=True)
    bench.refused("inplace")


def test_a_second_read_counts_and_replaces_the_first() -> None:
    bench = Bench()
    again = Reading("tenon-a", Digest.of(b"a"))
    bench.watch.loaded(A, again)
    assert bench.counts["rereads"] == 1
    with pytest.raises(GuardViolation):
        bench.step({"x": A})
    bench.refused("weights")


def test_an_adapter_is_the_same_in_whichever_slot() -> None:
    bench = Bench()
    bench.watch.activated(1, (5, 6))
    bench.watch.activated(2, (7, 8))
    bench.watch.activated(1, (5, 6))
    bench.watch.activated(9, (0, 0))  # of the warm-up: nobody's
    bench.watch.audited(1, 0, 1, 6)
    with pytest.raises(GuardViolation):
        bench.watch.activated(1, (5, 7))
    bench.refused("tensor")


def test_a_write_to_a_slot() -> None:
    bench = Bench()
    bench.watch.activated(1, (5, 6))
    with pytest.raises(GuardViolation):
        bench.watch.audited(1, 0, 1, 7)
    assert bench.refused("tensor").names == ("tenon-a",)


def test_a_step_that_failed_by_itself_is_no_fault_of_the_next() -> None:
    bench = Bench()
    bench.watch.begin([("x", A)], [], {"x": 1})
    bench.watch.abandon()
    assert not bench.watch.running
    bench.step({"x": A}, new=False)
    assert bench.found == []
