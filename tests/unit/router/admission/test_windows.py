"""No minute, however it is cut, holds more than the limit; and what a client is told to wait is right."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.counting import DAY_SECONDS, SLICE_SECONDS
from router.admission.hours import Hours
from router.admission.shown import duration
from router.admission.windows import Day, Minute

STEPS = st.lists(
    st.tuples(st.floats(min_value=0, max_value=40), st.integers(min_value=1, max_value=60)), max_size=60
)


def at(now: float) -> int:
    return int(now) // SLICE_SECONDS


@given(steps=STEPS, limit=st.integers(min_value=1, max_value=100), start=st.floats(1e9, 2e9))
def test_no_minute_holds_more_than_the_limit(
    steps: list[tuple[float, int]], limit: int, start: float
) -> None:
    minute, now = Minute(limit), start
    taken: list[tuple[float, int]] = []
    for pause, amount in steps:
        now += pause
        minute.advance(at(now))
        if minute.wait(amount, now) == 0:
            minute.add(at(now), amount)
            taken.append((now, amount))
    for end, _ in taken:
        assert sum(amount for when, amount in taken if end - 60 < when <= end) <= limit


@given(steps=STEPS, limit=st.integers(min_value=60, max_value=100), start=st.floats(1e9, 2e9))
def test_after_the_wait_it_fits_and_not_before(
    steps: list[tuple[float, int]], limit: int, start: float
) -> None:
    minute, now = Minute(limit), start
    for pause, amount in steps:
        now += pause
        minute.advance(at(now))
        if wait := minute.wait(amount, now):
            assert 0 < wait <= 65
            minute.advance(at(now + wait - 0.01))
            assert minute.wait(amount, now + wait - 0.01) > 0
            now += wait + 1e-6
            minute.advance(at(now))
            assert minute.wait(amount, now) == 0
        minute.add(at(now), amount)
    assert minute.used == sum(minute.own)
    minute.advance(at(now + minute.reset(now) + 1e-6))
    assert minute.used == 0


def test_what_is_given_back_late_frees_nothing_that_is_past() -> None:
    minute = Minute(10)
    minute.advance(100)
    minute.add(100, 10)
    minute.advance(113)
    minute.add(113, 4)
    minute.add(100, -10)
    assert minute.used == 4


def test_more_is_never_given_back_than_was_taken() -> None:
    """A limit that is younger than the request never saw its reservation."""
    minute, day = Minute(10), Day(10)
    minute.advance(100)
    day.advance(1)
    minute.add(100, 2)
    minute.add(100, -50)
    day.add(1, -50)
    assert (minute.used, day.used) == (0, 0)


def test_others_are_heard_once() -> None:
    minute = Minute(10)
    minute.advance(100)
    minute.hear(99, 4)
    minute.hear(99, 6)
    assert minute.used == 6
    minute.hear(99, 1)
    assert minute.used == 1


def test_a_day_ends_at_midnight_utc() -> None:
    day = Day(100)
    day.advance(20)
    day.add(20, 70)
    day.hear(20, 20)
    assert day.used == 90
    assert day.reset(20 * DAY_SECONDS + 1) == DAY_SECONDS - 1
    day.advance(19)
    assert day.used == 90
    day.advance(21)
    day.add(20, 50)
    assert day.used == 0


class Wall:
    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)
        self.ticks = 50.0

    def now(self) -> datetime:
        return self.at

    def pass_(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.ticks += seconds


def test_hours_follow_a_wall_that_jumps_ahead_and_never_go_back() -> None:
    wall = Wall()
    hours = Hours(wall=wall.now, ticks=lambda: wall.ticks)
    began = hours.now()
    assert began == wall.at.timestamp()
    wall.at += timedelta(seconds=100)
    hours.correct()
    assert hours.now() == began + 100
    wall.at -= timedelta(seconds=40)
    seen = hours.now()
    for _ in range(80):
        wall.pass_(1)
        hours.correct()
        assert hours.now() >= seen + 0.49  # half the speed of time, never back
        seen = hours.now()
    assert seen == pytest.approx(wall.at.timestamp())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, b"0s"),
        (0.2, b"1s"),
        (6, b"6s"),
        (59.5, b"1m0s"),
        (61, b"1m1s"),
        (3599, b"59m59s"),
        (43384, b"12h3m4s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: bytes) -> None:
    assert duration(seconds) == text
