"""Which versions have a device slot kept for them: what the feed says, however it says it."""

from dataclasses import replace

from registry.feed import State, difference
from registry.models import Canary, Level
from router.tables import Tables, advance, compile_tables
from tests.support.fleets import engine, live, published, slot, state, tenant, version


def _scene() -> State:
    versions = [published(name, "bank") for name in ("one", "two")] + [published("other", "shop")]
    return state(
        engines=[engine("engine-0", max_loras=3), engine("engine-1", max_loras=1)],
        tenants=[tenant("bank", Level.PINNED), tenant("shop")],
        versions=versions,
        aliases=[live("one", "bank"), live("other", "shop")],
        slots={name: [each.version for each in versions] for name in ("engine-0", "engine-1")},
    )


def _advanced(tables: Tables, before: State, after: State) -> Tables:
    """As routers hear of it; and it must be what they would find had they just begun."""
    now = replace(after, position=after.position._replace(size=before.position.size + 1))
    delta = difference(before.snapshot(), now.snapshot())
    assert delta is not None
    advanced = advance(tables, delta)
    assert advanced.pins == compile_tables(now.snapshot()).pins
    return advanced


def test_a_slot_is_kept_for_what_answers_somebody_of_a_pinned_tenant_and_one_is_left_for_others() -> None:
    pins = compile_tables(_scene().snapshot()).pins
    assert pins.on == {"engine-0": {version("one")}}


def test_pins_follow_the_feed() -> None:
    first = _scene()
    tables = compile_tables(first.snapshot())
    with_canary = live("one", "bank").model_copy(
        update={"epoch": 2, "canaries": (Canary(version=version("two"), percent=10),)}
    )
    second = replace(first, aliases={**first.aliases, ("bank", "one", "live"): with_canary})
    found = _advanced(tables, first, second)
    assert found.pins.on == {"engine-0": {version("one"), version("two")}}

    home = first.engines["engine-0"]
    third = replace(first, slots={"engine-0": {version("other"): slot(home, version("other"))}})
    assert _advanced(tables, first, third).pins.on == {}

    for level, pinned in ((Level.SHARED, False), (Level.PINNED, True)):
        changed = replace(first, tenants={**first.tenants, "bank": tenant("bank", level, replicas=3)})
        assert bool(_advanced(tables, first, changed).pins.on) == pinned
    both = replace(first, tenants={**first.tenants, "shop": tenant("shop", Level.PINNED)})
    assert _advanced(tables, first, both).pins.on == {"engine-0": {version("one"), version("other")}}


def test_news_that_change_no_pin_leave_the_same_table() -> None:
    first = _scene()
    tables = compile_tables(first.snapshot())
    moved = live("other", "shop").model_copy(update={"epoch": 2})
    after = replace(first, aliases={**first.aliases, ("shop", "other", "live"): moved})
    assert _advanced(tables, first, after).pins is tables.pins
