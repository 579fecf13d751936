"""A stamp of the router is the registry's, to the character."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from registry.clock import stamp
from router.stamps import Stamps

START = datetime(2026, 1, 1, tzinfo=UTC)
some = st.timedeltas(timedelta(days=-20000), timedelta(days=20000))


@given(some, st.lists(st.timedeltas(timedelta(seconds=-3), timedelta(seconds=3)), max_size=8))
def test_whatever_came_before_a_moment_is_spelled_alike(since: timedelta, steps: list[timedelta]) -> None:
    stamps, start = Stamps(), START + since
    assert stamps(start) == stamp(start)
    for step in steps:  # forth and back over the border of a second
        start += step
        assert stamps(start) == stamp(start)
