"""Whatever happens to a registry, a reader that follows it change by change knows exactly what it holds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.feed import Delta, Snapshot, State, difference, encode, parse
from tests.support.histories import History, Step, begun, steps

HISTORIES = st.lists(st.lists(steps(), min_size=1, max_size=5), min_size=1, max_size=6)


def told(history: History, state: State) -> Delta | None:
    """What a reader at ``state`` gets, as it arrives over the wire."""
    news, sent = history.changes(*state.position), history.told(*state.position)
    assert (news is None) == (sent is None)
    if news is None or sent is None:
        return None
    arrived = parse(sent)
    assert arrived == news
    assert isinstance(arrived, Delta)
    return arrived


@settings(max_examples=30)
@given(transactions=HISTORIES, often=st.booleans())
def test_a_snapshot_and_the_changes_after_it_are_the_later_snapshot(
    transactions: list[list[Step]], often: bool
) -> None:
    """Readers that hear of each transaction, and readers that were away for several."""
    with begun() as history:
        start = history.snapshot()
        state = State.of(start)
        assert state.snapshot() == start
        seen = [start]
        for transaction in transactions:
            history.take(transaction)
            if often and (delta := told(history, state)) is not None:
                state = state.after(delta)
                seen.append(history.snapshot())
                assert state.snapshot() == seen[-1]
        newest = history.snapshot()
        assert history.told(-1) == encode(newest)
        for earlier in seen:
            reader = State.of(earlier)
            if (delta := told(history, reader)) is not None:
                reader = reader.after(delta)
            assert reader.snapshot() == newest


@settings(max_examples=12)
@given(transactions=HISTORIES)
def test_the_difference_of_two_snapshots_leads_from_one_to_the_other(transactions: list[list[Step]]) -> None:
    """What registries in memory send instead."""
    with begun() as history:
        before = history.snapshot()
        for transaction in transactions:
            history.take(transaction)
        after = history.snapshot()
        if after.size == before.size:
            return
        delta = difference(before, after)
        assert delta is not None
        assert State.of(before).after(delta).snapshot() == after


def test_what_was_removed_can_only_be_told_by_a_snapshot() -> None:
    with begun() as history:
        before = history.snapshot()
        fewer = Snapshot(size=before.size + 1, root=before.root, tenants=before.tenants[1:])
        assert difference(before, fewer) is None
