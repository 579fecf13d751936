"""Engines that are down are waited for, and not for ever."""

from dataclasses import replace

from server.engines.absent import Absent
from tests.support.fleets import engine, state


def test_an_engine_is_given_up_after_it_was_down_for_so_long_in_a_row() -> None:
    now = 0.0
    absent = Absent(900, lambda: now)
    down = state(engines=[engine("one"), engine("two", up=False)], tenants=[], versions=[])
    assert absent.among(down) == set()
    now = 899.9
    assert absent.among(down) == set()
    now = 900.0
    assert absent.among(down) == {"two"}
    assert absent.among(replace(down, engines={**down.engines, "two": engine("two", boot=2)})) == set()
    assert absent.among(down) == set(), "it was back in between"
    now = 1800.0
    assert absent.among(down) == {"two"}
