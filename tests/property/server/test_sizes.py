"""What one boot is made for: no less than is wanted, no more than is served, and only what vLLM takes."""

from hypothesis import given
from hypothesis import strategies as st

from server.engines.sizes import RANKS, Sizes, sizes, slot_rank

ranks = st.integers(1, RANKS[-1])
wanted = st.lists(ranks, max_size=80)
bounds = st.builds(Sizes, rank=st.sampled_from(RANKS), names=st.integers(1, 64))


@given(wanted, bounds)
def test_every_version_that_the_engine_may_hold_fits_and_no_bound_is_passed(
    wanted: list[int], bounds: Sizes
) -> None:
    made = sizes(wanted, bounds)
    held = [rank for rank in wanted if rank <= bounds.rank]
    assert made.rank in RANKS
    assert all(rank <= made.rank for rank in held)
    assert made.rank <= bounds.rank
    assert made.names >= max(bounds.names, 3 * len(held))
    largest = slot_rank(max(held, default=1))
    assert made.rank == min(max(largest, 16), bounds.rank), (
        "no more than the largest of them needs, or vLLM's own"
    )


@given(wanted, ranks, bounds)
def test_more_that_is_wanted_never_makes_a_boot_smaller(wanted: list[int], more: int, bounds: Sizes) -> None:
    before, after = sizes(wanted, bounds), sizes([*wanted, more], bounds)
    assert after.names >= before.names
    assert after.rank >= before.rank


@given(wanted, st.sampled_from(RANKS), st.sampled_from(RANKS), st.integers(1, 64))
def test_a_larger_bound_never_makes_a_boot_smaller(
    wanted: list[int], one: int, other: int, names: int
) -> None:
    held = [rank for rank in wanted if rank <= min(one, other)]
    small, large = (sizes(held, Sizes(bound, names)) for bound in sorted((one, other)))
    assert small.rank <= large.rank
    assert small.names <= large.names
