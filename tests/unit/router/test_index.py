"""Where receipts are found: the newest, in memory that does not grow, and nobody pushes out another's."""

from random import Random

import pytest

from router.records.index import Index
from router.records.segments import Place


def size(index: Index) -> int:
    return sum(
        table.itemsize * len(table)
        for shelf in index._shelves.values()
        for block in shelf.blocks
        for table in (block.tags, block.places)
    )


def place(number: int) -> Place:
    return Place(number % 7, number * 900)


def found(index: Index, tenant: str, number: int) -> bool:
    return place(number) in list(index.find(tenant, f"rec-{number}"))


@pytest.mark.parametrize("least", [1, 100, 1000, 3000])
def test_the_newest_are_found_however_many_there_were(least: int) -> None:
    index, most = Index(least), 0
    for number in range(20_000):
        index.add("bank_a", f"rec-{number}", place(number))
        most = max(most, size(index))
    assert all(found(index, "bank_a", number) for number in range(20_000 - least, 20_000))
    assert not any(found(index, "bank_a", number) for number in range(8000))
    assert most <= max(1024, 6 * least) * 12
    assert len(index._shelves["bank_a"].blocks) < 30  # a search looks into each


def test_two_hundred_thousand_take_twelve_mebibytes() -> None:
    index = Index(200_000)
    for number in range(900_000):
        index.add("bank_a", f"rec-{number}", place(number))
    assert 11 << 20 < size(index) <= 12 << 20


def test_who_asks_most_gives_up_its_own() -> None:
    index = Index(1000)
    for number in range(300):
        index.add("bank_a", f"rec-{number}", place(number))
    for number in range(20_000, 40_000):
        index.add("flood_b", f"rec-{number}", place(number))
    for number in range(300, 400):
        index.add("late_c", f"rec-{number}", place(number))
    assert all(found(index, "bank_a", number) for number in range(300))
    assert all(found(index, "late_c", number) for number in range(300, 400))
    assert all(found(index, "flood_b", number) for number in range(39_500, 40_000))
    assert not any(found(index, "flood_b", number) for number in range(300))
    assert not list(index.find("nobody", "rec-1"))


def test_equals_end_up_with_as_much() -> None:
    index = Index(1000)
    for number in range(40_000):
        index.add(("bank_a", "shop_b")[number % 2], f"rec-{number}", place(number))
    for parity, tenant in enumerate(("bank_a", "shop_b")):
        kept = sum(found(index, tenant, number) for number in range(parity, 40_000, 2))
        assert 700 < kept < 2200, kept


def test_with_more_tenants_than_there_is_room_for_the_bound_holds() -> None:
    index, random = Index(100), Random(7)
    for number in range(30_000):
        tenant = f"t-{random.randrange(300)}" if number % 3 else "flood"
        index.add(tenant, f"rec-{number}", place(number))
        assert size(index) == (index._slots - index._free) * 12 <= index._slots * 12
        assert found(index, tenant, number)
        assert all(shelf.blocks for shelf in index._shelves.values())
    assert len(index._shelves) > 30
    assert index._shelves["flood"].slots <= 64


def test_of_equals_the_one_that_asks_gives_up_its_own() -> None:
    index = Index(1000)
    for number in range(3 * index._slots // 8):  # half of the room
        index.add("bank_a", f"rec-{number}", place(number))
    assert index._shelves["bank_a"].slots == index._slots // 2
    for number in range(20_000, 30_000):
        index.add("flood_b", f"rec-{number}", place(number))
    assert all(found(index, "bank_a", number) for number in range(3 * index._slots // 8))
