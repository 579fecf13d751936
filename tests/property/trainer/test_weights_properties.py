"""Weighted rows: how often each is learned keeps to its weight, pass after pass."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainer.learning.batches import arrange

weights = st.lists(st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0]), min_size=1, max_size=12)


def turns(weight: float, passes: int) -> int:
    return math.ceil(weight * passes - 1e-9)


def in_passes(given_weights: list[float], passes: int) -> int:
    return sum(turns(weight, passes) for weight in given_weights)


@given(weights, st.integers(1, 6), st.integers(0, 9))
def test_whole_passes_hold_each_row_as_often_as_its_weight_says(
    given_weights: list[float], passes: int, seed: int
) -> None:
    wanted = in_passes(given_weights, passes)
    order = arrange([5] * len(given_weights), steps=wanted, batch_size=1, seed=seed, weights=given_weights)
    assert Counter(order) == {row: turns(weight, passes) for row, weight in enumerate(given_weights)}


@given(weights, st.integers(1, 8), st.integers(1, 40), st.integers(0, 9))
def test_anywhere_in_a_pass_no_row_is_ahead_or_behind_by_more_than_a_pass(
    given_weights: list[float], batch_size: int, steps: int, seed: int
) -> None:
    order = arrange(
        [5] * len(given_weights), steps=steps, batch_size=batch_size, seed=seed, weights=given_weights
    )
    assert len(order) == steps * batch_size
    counted = Counter(order)
    passes = next(n for n in range(1, 10 * len(order) + 2) if in_passes(given_weights, n) >= len(order))
    for row, weight in enumerate(given_weights):
        assert turns(weight, passes - 1) <= counted[row] <= turns(weight, passes)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=30), st.integers(0, 9))
def test_equal_weights_are_no_weights(lengths: list[int], seed: int) -> None:
    plain = arrange(lengths, steps=10, batch_size=4, seed=seed)
    assert arrange(lengths, steps=10, batch_size=4, seed=seed, weights=[1.0] * len(lengths)) == plain
