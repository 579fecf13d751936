"""Whose slots may begin where, whatever an agent says."""

import pytest

from registry.homes import Homes
from registry.models import EngineState, Level
from tests.support.fleets import engine, tenant, version

MINE = version("mine")
SHARED, OWN, THEIRS = engine("shared"), engine("own"), engine("theirs")
GIVEN = {"own": "anna", "theirs": "bert"}


def _homes(level: Level) -> Homes:
    own = ("own",) if level in (Level.DEDICATED, Level.MERGED) else ()
    merged = frozenset({"own"}) if level is Level.MERGED else frozenset[str]()
    return Homes(MINE, tenant("anna", level, *own), GIVEN, merged)


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("holders", [(), (SHARED,), (OWN,), (THEIRS,), (SHARED, OWN, THEIRS)], ids=len)
def test_no_slot_begins_on_an_engine_that_was_given_to_another_tenant(
    level: Level, holders: tuple[EngineState, ...]
) -> None:
    """Also not for the time of a move, which opens shared engines to who has none of its own yet."""
    assert not _homes(level).admits(THEIRS, holders)


def test_a_move_opens_shared_engines_and_no_others() -> None:
    for level in (Level.DEDICATED, Level.MERGED):
        homes = _homes(level)
        assert homes.admits(SHARED, [THEIRS])
        assert not homes.admits(SHARED, [])  # served nowhere: its own may just be down
        assert not homes.admits(engine("other", merged=version("theirs")), [THEIRS])
    assert _homes(Level.DEDICATED).admits(OWN, [SHARED])
    assert not _homes(Level.SHARED).admits(OWN, [SHARED])
