"""``tenon promote`` over HTTP while engines load: nothing moves before all of them hold the version."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.models import Role
from tests.journeys.commands import Done, tenon_here
from tests.support.registries import NAME, World, attested
from tests.support.remote import remote

RULE = ("--rule", "accuracy>=0.8")
ENGINES = ("engine-0", "engine-1")


def _attest(world: World, version: Digest, engine: str) -> None:
    finding = world.finding(version).model_copy(update={"engine": engine})
    world.catalog.attest(attested(finding), actor=engine)


@contextmanager
def _agents(world: World, *engines: str) -> Iterator[None]:
    """They load what is being prepared, as the feed tells them."""
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(0.02):
            news = world.catalog.snapshot()
            for prepared in news.preparations:
                for engine in engines:
                    if all((slot.engine, slot.version) != (engine, prepared.version) for slot in news.slots):
                        _attest(world, prepared.version, engine)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Staff:
    """Commands against one registry, by a tenant's admin (``ada``) and the platform's (``root``)."""

    world: World
    keys: Path
    monkeypatch: pytest.MonkeyPatch

    def by(self, name: str, *words: str) -> Done:
        self.monkeypatch.setenv("TENON_KEY_FILE", str(self.keys / name))
        return tenon_here(*words)

    def live(self) -> Digest:
        return self.world.catalog.alias(NAME).version

    def up(self, *versions: Digest, boot: str = "boot-0001") -> None:
        """Both engines, and what they hold."""
        for engine in ENGINES:
            self.world.catalog.announce(self.world.engine(engine, boot=boot), actor=engine)
            for version in versions:
                finding = self.world.finding(version, engine=engine, boot=boot)
                self.world.catalog.attest(attested(finding), actor=engine)


@pytest.fixture
def staff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Staff]:
    with remote(tmp_path / "registry") as found:
        monkeypatch.setenv("TENON_WORKSPACE", found.url)
        for name, tenant, role in (
            ("ada", "bank_a", Role.TENANT_ADMIN),
            ("root", None, Role.PLATFORM_ADMIN),
        ):
            _, secret = found.world.catalog.issue_key(tenant, role=role, actor="platform")
            (tmp_path / name).write_text(secret)
        yield Staff(found.world, tmp_path, monkeypatch)


def test_promote_waits_for_the_engines(staff: Staff) -> None:
    world = staff.world
    first, second, third, fourth = (world.evaluated(seed=seed) for seed in (1, 2, 3, 4))
    moved = staff.by("ada", "promote", f"{NAME}@{first}", *RULE)  # never was an engine: nobody waits
    assert (moved.code, "its base has no engine yet" in moved.err) == (0, True)
    staff.up(first)
    late = staff.by("ada", "promote", f"{NAME}@{second}", *RULE, "--wait", "0.3")
    assert late.code == 1
    assert "[promotion_not_ready]" in late.err
    assert "2 of 2 engines" in late.err
    assert "engine-" not in late.err  # a tenant is told how many, never which
    assert "engine-0" in staff.by("root", "promote", f"{NAME}@{second}", *RULE, "--wait", "0.3").err
    assert staff.live() == first
    with _agents(world, *ENGINES):
        assert staff.by("ada", "promote", f"{NAME}@{second}", *RULE).code == 0
        done = staff.by("ada", "promote", f"{NAME}@{third}", *RULE)
    assert (done.code, "2 of 2 engines hold it" in done.err) == (0, True)
    assert staff.live() == third
    for engine in ENGINES:
        world.catalog.announce(world.engine(engine, boot="boot-0002", up=False), actor=engine)
    refused = staff.by("ada", "promote", f"{NAME}@{fourth}", *RULE, "--wait", "0.3")
    assert (refused.code, "[promotion_not_ready]" in refused.err) == (1, True)
    assert "no engine was up" in refused.err
    assert "--no-wait" in refused.err
    assert staff.live() == third
    moved = staff.by("ada", "promote", f"{NAME}@{fourth}", *RULE, "--no-wait")
    assert (moved.code, "all engines of its base are down" in moved.err) == (0, True)
    assert staff.live() == fourth


def test_what_engines_found_wrong_is_told_to_the_platform(staff: Staff) -> None:
    first, bad = (staff.world.evaluated(seed=seed) for seed in (1, 5))
    staff.up(first)
    staff.by("ada", "promote", f"{NAME}@{first}", *RULE)
    found = staff.world.finding(bad, passed=False).model_copy(update={"reason": "it behaves as the base"})
    staff.world.catalog.attest(attested(found), actor="engine-0")
    told = staff.by("root", "promote", f"{NAME}@{bad}", *RULE, "--wait", "0.3").err
    assert "engine-0: attestation_failed: it behaves as the base" in told
    assert "publish it again or restart the engine" in told
    silent = staff.by("ada", "promote", f"{NAME}@{bad}", *RULE, "--wait", "0.3").err
    assert "2 of 2 engines did not hold" in silent
    assert "attestation_failed" not in silent
    assert "behaves" not in silent
    assert "engine-" not in silent


def test_a_roll_back_waits_for_engines_that_start_afresh(staff: Staff) -> None:
    first, second, third = (staff.world.evaluated(seed=seed) for seed in (1, 2, 3))
    staff.up(first, second, third)
    for version in (first, second, third):
        assert staff.by("ada", "promote", f"{NAME}@{version}", *RULE).code == 0
    assert f"{second} (to epoch 2)" in staff.by("ada", "alias", "show", str(NAME)).out
    back = staff.by("ada", "rollback", str(NAME))  # a commit without a load
    assert (back.code, staff.live()) == (0, second)
    assert back.err == f"{NAME}:live is back at {second.short}\n"
    staff.up(second, boot="boot-0002")  # they have never seen the first one
    late = staff.by("ada", "rollback", str(NAME), "--wait", "0.3")
    assert late.code == 1
    assert "[promotion_not_ready]" in late.err
    assert "2 of 2 engines" in late.err
    assert staff.live() == second
    moved = staff.by("ada", "rollback", str(NAME), "--no-wait")
    assert (moved.code, "Warning: no engine holds it (engines load it first)" in moved.err) == (0, True)
    assert staff.live() == first
