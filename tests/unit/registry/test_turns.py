import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.store.errors import StoreBusy
from registry.store.turns import Turns


def _waiting(turns: Turns, count: int) -> None:
    while len(turns._waiting) < count:  # pytest's timeout ends it
        threading.Event().wait(0.001)


def test_who_came_first_goes_first() -> None:
    turns, order = Turns(1, patience=30), []

    def go(number: int) -> None:
        with turns.turn():
            order.append(number)

    with ThreadPoolExecutor(20) as pool, turns.turn():
        for number in range(20):
            pool.submit(go, number)
            _waiting(turns, number + 1)
    assert order == list(range(20))


def test_who_just_left_does_not_overtake() -> None:
    """The one that leaves and comes again at once stands behind who already waits."""
    turns, order = Turns(1, patience=30), []

    def go() -> None:
        with turns.turn():
            order.append("waited")

    thread = threading.Thread(target=go)
    with turns.turn():
        thread.start()
        _waiting(turns, 1)
    with turns.turn():
        order.append("came again")
    thread.join()
    assert order == ["waited", "came again"]


def test_never_more_than_the_places() -> None:
    turns, lock, now, most = Turns(3, patience=30), threading.Lock(), 0, 0

    def go(_: int) -> None:
        nonlocal now, most
        with turns.turn():
            with lock:
                now += 1
                most = max(most, now)
            with lock:
                now -= 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(go, range(500)))
    assert 1 <= most <= 3
    assert (turns._free, list(turns._waiting)) == (3, [])


def test_patience_ends_and_the_place_is_not_lost() -> None:
    turns = Turns(1, patience=0.01)
    with turns.turn(), pytest.raises(StoreBusy), turns.turn():
        pass
    with turns.turn():
        pass
    with pytest.raises(ZeroDivisionError), turns.turn():
        _ = 1 / 0
    with turns.turn():
        assert turns._free == 0
