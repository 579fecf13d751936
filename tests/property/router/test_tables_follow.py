"""Tables that follow the registry change by change are the tables that the whole state gives."""

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.feed import Delta
from router.tables import Tables, advance, compile_tables
from tests.support.histories import Step, begun, steps


def same(one: Tables, other: Tables) -> None:
    assert one.state.snapshot() == other.state.snapshot()
    assert one.holders == other.holders
    assert one.routes == other.routes
    assert {digest: lazy.policy for digest, lazy in one.policies.items()} == {
        digest: lazy.policy for digest, lazy in other.policies.items()
    }
    assert one.places == other.places
    assert one.faults == other.faults


@settings(max_examples=30, deadline=None)
@given(transactions=st.lists(st.lists(steps(), min_size=1, max_size=6), min_size=1, max_size=6))
def test_following_changes_is_compiling_everything(transactions: list[list[Step]]) -> None:
    with begun() as history:
        tables = compile_tables(history.snapshot())
        for transaction in transactions:
            history.take(transaction)
            delta = history.changes(*tables.state.position)
            if delta is None:
                continue
            assert isinstance(delta, Delta)
            before = tables
            tables = advance(tables, delta)
            same(tables, compile_tables(history.snapshot()))
            unmoved = before.routes.keys() - {routing.tenant for routing in delta.routings}
            assert all(tables.routes[tenant] is before.routes[tenant] for tenant in unmoved)
