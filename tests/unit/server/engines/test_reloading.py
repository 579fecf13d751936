from registry.digests import Digest
from server.engines.errors import EngineLoadFailed
from server.engines.reloading import Reloading

ONE, OTHER = Digest.of(b"one"), Digest.of(b"other")
BROKEN, WRONG = EngineLoadFailed("no", status=500), EngineLoadFailed("no", status=400)


def test_each_version_is_stuck_by_its_own_failures_and_asked_again_all_the_same() -> None:
    reloading = Reloading(set(), pauses=(1.0, 60.0), tries=2)
    assert reloading.failed(ONE, BROKEN, 0.0) is not None
    assert not reloading.stuck
    for _ in range(5):
        assert reloading.failed(ONE, BROKEN, 0.0) is not None
    assert reloading.failed(OTHER, BROKEN, 0.0) is not None
    assert (reloading.stuck, reloading.again) == ({ONE}, {ONE, OTHER})
    reloading.loaded(ONE)
    assert (reloading.stuck, reloading.again) == (set(), {OTHER})


def test_what_turns_out_to_be_wrong_is_stuck_no_more() -> None:
    reloading = Reloading(set(), pauses=(1.0, 60.0), tries=1)
    assert reloading.failed(ONE, BROKEN, 0.0) is not None
    assert reloading.failed(ONE, WRONG, 0.0) is None
    assert not reloading.stuck | reloading.again


def test_a_version_that_another_boot_was_stuck_with_is_given_up_whatever_else_is_stuck_now() -> None:
    known = {ONE}
    reloading = Reloading(known, pauses=(1.0, 60.0), tries=1)
    assert reloading.failed(OTHER, BROKEN, 0.0) is not None
    assert reloading.failed(ONE, BROKEN, 0.0) is None
    assert (reloading.stuck, known) == ({OTHER}, {ONE, OTHER})
