from server.engines.patience import Patience
from server.engines.residency import Renewal

CALM, HASTY = Renewal("loads fail", (), hurries=False), Renewal("loads fail", ())


def test_it_begins_with_the_reason_and_is_over_after_its_time() -> None:
    patience = Patience(300.0)
    assert patience.lasts(HASTY, 1000.0)
    assert patience.lasts(HASTY, 1299.0)
    assert not patience.lasts(HASTY, 1300.0)
    assert patience.lasts(Renewal("names are used up", ()), 1300.0)


def test_what_hurries_only_now_has_all_of_it() -> None:
    patience = Patience(300.0)
    patience.lasts(CALM, 0.0)
    assert patience.lasts(HASTY, 3601.0)
    assert not patience.lasts(HASTY, 3901.0)


def test_it_begins_anew_when_nothing_was_needed_in_between() -> None:
    patience = Patience(300.0)
    patience.lasts(HASTY, 0.0)
    patience.over()
    assert patience.lasts(HASTY, 3600.0)
