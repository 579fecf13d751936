import hmac
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.catalog.errors import ExpiryInvalid, KeyEnded, KeyInvalid
from registry.clock import ManualClock, RatchetClock, restamp, stamp
from registry.errors import InvalidDocument, InvalidInput, KeyNotFound, KeyRefused, TenantNotFound
from registry.models import Key, Role, Tenant
from tests.support.registries import World, open_world

DAY = 24 * 3600


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(tmp_path: Path, store: str, clock: ManualClock) -> Iterator[World]:
    made = open_world(tmp_path, store=store, clock=clock)
    yield made
    made.database.close()


def _in(clock: ManualClock, seconds: float) -> str:
    return stamp(clock.now() + timedelta(seconds=seconds))


def _opens(world: World, secret: str) -> bool:
    try:
        world.catalog.authenticate(secret)
    except KeyRefused:
        return False
    return True


def test_a_key_opens_what_it_was_issued_for(timed: World) -> None:
    key, secret = timed.catalog.issue_key("bank_a", role=Role.TRAINER, label="nightly", actor="test")
    assert timed.catalog.authenticate(secret) == key == timed.catalog.key(key.id)
    assert (key.tenant, key.role, key.label) == ("bank_a", Role.TRAINER, "nightly")


def test_a_platform_admins_key_belongs_to_no_tenant(timed: World) -> None:
    key, secret = timed.catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="test")
    assert timed.catalog.authenticate(secret).tenant is None
    assert timed.catalog.keys(None) == (key,)
    assert timed.catalog.keys("bank_a") == ()
    for tenant, role in ((None, Role.TENANT_ADMIN), ("bank_a", Role.PLATFORM_ADMIN)):
        with pytest.raises(KeyInvalid):
            timed.catalog.issue_key(tenant, role=role, actor="test")
    assert timed.catalog.verify() == []


def test_whatever_is_wrong_the_answer_is_the_same(timed: World, clock: ManualClock) -> None:
    revoked, revoked_secret = timed.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    timed.catalog.revoke_key(revoked.id, actor="test")
    _, short = timed.catalog.issue_key("bank_a", role=Role.INFERENCE, expires_at=_in(clock, 5), actor="test")
    _, theirs = timed.catalog.issue_key("retail_b", role=Role.INFERENCE, actor="test")
    timed.catalog.suspend_tenant("retail_b", reason="unpaid", actor="test")
    key, secret = timed.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    clock.advance(5)
    wrong = [
        revoked_secret,
        short,
        theirs,
        secret[:-1] + ("A" if secret[-1] != "A" else "B"),
        secret.replace(key.id, "0" * 16),
        secret.replace(key.id, revoked.id),
        "",
        "tn_",
        "\ud800",
        "Bearer " + secret,
    ]
    answers = set()
    for attempt in wrong:
        with pytest.raises(KeyRefused) as refused:
            timed.catalog.authenticate(attempt)
        answers.add((refused.value.message, refused.value.advice, str(refused.value.facts)))
    assert len(answers) == 1
    assert _opens(timed, secret)


def test_an_unknown_id_takes_the_same_comparison(timed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = timed.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    compared: list[tuple[int, int]] = []

    def counted(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for attempt in (secret, secret[:-3] + "AAA", f"tn_{'0' * 16}_{'A' * 43}"):
        _opens(timed, attempt)
    assert compared == [(71, 71)] * 3


def test_an_old_platform_key_of_a_tenant_opens_nothing(timed: World) -> None:
    """The first release issued them; taken at their word they would open everything."""
    key, secret = timed.catalog.issue_key("bank_a", role=Role.TENANT_ADMIN, actor="test")
    with timed.database.write() as rows:
        rows.keys.put(key.model_copy(update={"role": Role.PLATFORM_ADMIN}), issuer="cli", entry=0)
    assert not _opens(timed, secret)


def test_suspension_and_resumption(timed: World) -> None:
    _, secret = timed.catalog.issue_key("bank_a", role=Role.TENANT_ADMIN, actor="test")
    timed.catalog.suspend_tenant("bank_a", reason="unpaid", actor="alice")
    size = timed.catalog.snapshot().size
    timed.catalog.suspend_tenant("bank_a", reason="again", actor="bob")
    assert timed.catalog.snapshot().size == size
    assert timed.catalog.tenant("bank_a").suspended
    assert not _opens(timed, secret)
    entry = timed.catalog.entries(size - 1)[0]
    assert (entry.kind, entry.subject, entry.body["reason"]) == ("tenant.changed", "bank_a", "unpaid")
    timed.catalog.resume_tenant("bank_a", actor="alice")
    assert _opens(timed, secret)
    with pytest.raises(InvalidInput):
        timed.catalog.suspend_tenant("bank_a", reason=" ", actor="alice")
    for ask in (
        lambda: timed.catalog.suspend_tenant("nobody", reason="x", actor="test"),
        lambda: timed.catalog.resume_tenant("nobody", actor="test"),
        lambda: timed.catalog.rename_tenant("nobody", "x", actor="test"),
        lambda: timed.catalog.tenant("nobody"),
    ):
        with pytest.raises(TenantNotFound):
            ask()
    timed.catalog.rename_tenant("bank_a", "Bank of A", actor="test")
    assert timed.catalog.tenant("bank_a") == Tenant(id="bank_a", display_name="Bank of A")
    assert timed.catalog.verify() == []


def test_expiry(timed: World, clock: ManualClock) -> None:
    key, secret = timed.catalog.issue_key(
        "bank_a", role=Role.INFERENCE, expires_at="2026-01-01T01:00:10+01:00", actor="test"
    )
    assert key.expires_at == "2026-01-01T00:00:10.000000Z"
    clock.advance(9.999999)
    assert _opens(timed, secret)
    clock.advance(0.000001)
    assert not _opens(timed, secret)
    for when, error in (
        (_in(clock, 0), ExpiryInvalid),
        (_in(clock, -1), ExpiryInvalid),
        ("2027-01-01T00:00:00", InvalidInput),
        ("tomorrow", InvalidInput),
        ("0001-01-01T00:00:00+14:00", InvalidInput),
    ):
        with pytest.raises(error):
            timed.catalog.issue_key("bank_a", role=Role.INFERENCE, expires_at=when, actor="test")
    with pytest.raises(InvalidDocument):
        timed.catalog.issue_key("bank_a", role=Role.INFERENCE, label="x" * 101, actor="test")


def test_rotation_overlaps(timed: World, clock: ManualClock) -> None:
    old, before = timed.catalog.issue_key("bank_a", role=Role.TRAINER, label="ci", actor="alice")
    new, after = timed.catalog.rotate_key(old.id, overlap_seconds=60, actor="bob")
    assert (new.tenant, new.role, new.label, new.expires_at) == ("bank_a", Role.TRAINER, "ci", None)
    assert (new.line, old.line) == (old.id, old.id)
    assert _opens(timed, before)
    assert _opens(timed, after)
    clock.advance(60)
    assert not _opens(timed, before)
    assert _opens(timed, after)
    third, _ = timed.catalog.rotate_key(new.id, overlap_seconds=0, actor="bob")
    assert third.root == old.id
    assert not _opens(timed, after)
    for key_id, overlap, error in (
        (old.id, 60, KeyEnded),
        (new.id, 60, KeyEnded),
        ("0" * 16, 60, KeyNotFound),
        (third.id, -1, KeyInvalid),
        (third.id, float("nan"), KeyInvalid),
        (third.id, 31 * DAY, KeyInvalid),
    ):
        with pytest.raises(error):
            timed.catalog.rotate_key(key_id, overlap_seconds=overlap, actor="bob")
    timed.catalog.revoke_key(third.id, actor="bob")
    with pytest.raises(KeyEnded):
        timed.catalog.rotate_key(third.id, overlap_seconds=60, actor="bob")
    assert timed.catalog.verify() == []


def test_nobody_prolongs_a_key_by_rotating_it(timed: World, clock: ManualClock) -> None:
    end = _in(clock, 100)
    old, _ = timed.catalog.issue_key("bank_a", role=Role.TRAINER, expires_at=end, actor="test")
    new, secret = timed.catalog.rotate_key(old.id, overlap_seconds=1000, actor="test")
    assert (new.expires_at, timed.catalog.key(old.id).expires_at) == (end, end)
    clock.advance(100)
    assert not _opens(timed, secret)


def test_a_clock_set_back_revives_nothing(timed: World, clock: ManualClock, tmp_path: Path) -> None:
    _, secret = timed.catalog.issue_key(
        "bank_a", role=Role.INFERENCE, expires_at=_in(clock, 10), actor="test"
    )
    clock.advance(20)
    assert not _opens(timed, secret)
    clock.advance(-15)
    assert not _opens(timed, secret)  # this process has seen the later time
    clock.advance(15)
    timed.catalog.rename_tenant("bank_a", "at twenty", actor="test")
    clock.advance(-15)
    again = open_world(tmp_path, store=timed.address, clock=clock, filled=True)
    try:
        assert not _opens(again, secret)  # and this one finds it in the log
        again.catalog.rename_tenant("bank_a", "at five, it says", actor="test")
        times = [entry.at for entry in again.catalog.entries()]
        assert times == sorted(times)
        assert again.catalog.verify() == []
    finally:
        again.database.close()


def test_the_ratchet() -> None:
    clock = ManualClock()
    ratchet = RatchetClock(clock)
    start = ratchet.now()
    clock.advance(-5)
    assert ratchet.now() == start
    clock.advance(6)
    assert ratchet.now() == start + timedelta(seconds=1)
    assert restamp("2026-01-31T12:00:00Z", "x") == "2026-01-31T12:00:00.000000Z"
    assert restamp(stamp(datetime(2026, 1, 31, tzinfo=UTC)), "x") == "2026-01-31T00:00:00.000000Z"


def test_a_key_is_not_issued_for_a_stranger(timed: World) -> None:
    with pytest.raises(TenantNotFound):
        timed.catalog.issue_key("nobody", role=Role.INFERENCE, actor="test")
    assert timed.catalog.keys(None) == ()


def test_pages_of_keys(timed: World) -> None:
    keys = [timed.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")[0] for _ in range(5)]
    timed.catalog.issue_key("retail_b", role=Role.INFERENCE, actor="test")
    seen: list[Key] = []
    while page := timed.catalog.keys("bank_a", after=seen[-1].id if seen else None, limit=2):
        seen += page
    assert seen == sorted(keys, key=lambda key: key.id)
