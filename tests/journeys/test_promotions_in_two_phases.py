"""``tenon promote`` over HTTP while engines load: nothing moves before all of them hold the version."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.models import Role
from tests.journeys.commands import Done, tenon_here
from tests.support.registries import NAME, World, attested
from tests.support.remote import remote

RULE = ("--rule", "accuracy>=0.8")


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


def test_promote_waits_for_the_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remote(tmp_path / "registry") as found:
        world = found.world
        first, second = (world.evaluated(seed=seed) for seed in (1, 2))
        monkeypatch.setenv("TENON_WORKSPACE", found.url)
        for name, tenant, role in (
            ("ada", "bank_a", Role.TENANT_ADMIN),
            ("root", None, Role.PLATFORM_ADMIN),
        ):
            _, secret = world.catalog.issue_key(tenant, role=role, actor="platform")
            (tmp_path / name).write_text(secret)

        def by(name: str, *words: str) -> Done:
            monkeypatch.setenv("TENON_KEY_FILE", str(tmp_path / name))
            return tenon_here(*words)

        moved = by("ada", "promote", f"{NAME}@{first}", *RULE)  # there was never an engine: nobody waits
        assert (moved.code, "its base has no engine yet" in moved.err) == (0, True)
        for engine in ("engine-0", "engine-1"):
            world.catalog.announce(world.engine(engine), actor=engine)
            _attest(world, first, engine)
        late = by("ada", "promote", f"{NAME}@{second}", *RULE, "--wait", "0.3")
        assert (late.code, "[promotion_not_ready]" in late.err, "2 of 2 engines" in late.err) == (
            1,
            True,
            True,
        )
        assert "engine-" not in late.err  # a tenant is told how many, never which
        assert "engine-0" in by("root", "promote", f"{NAME}@{second}", *RULE, "--wait", "0.3").err
        assert world.catalog.alias(NAME).version == first
        bad = world.evaluated(seed=5)
        failed = world.finding(bad, passed=False).model_copy(update={"reason": "it behaves as the base"})
        world.catalog.attest(attested(failed), actor="engine-0")
        why = "engine-0: attestation_failed: it behaves as the base"
        told = by("root", "promote", f"{NAME}@{bad}", *RULE, "--wait", "0.3").err
        assert why in told
        assert "publish it again or restart the engine" in told
        silent = by("ada", "promote", f"{NAME}@{bad}", *RULE, "--wait", "0.3").err
        assert "2 of 2 engines did not hold" in silent
        assert "attestation_failed" not in silent
        assert "behaves" not in silent
        assert "engine-" not in silent
        third = world.evaluated(seed=3)
        with _agents(world, "engine-0", "engine-1"):
            assert by("ada", "promote", f"{NAME}@{second}", *RULE).code == 0
            done = by("ada", "promote", f"{NAME}@{third}", *RULE)
        assert (done.code, "2 of 2 engines hold it" in done.err) == (0, True)
        assert world.catalog.alias(NAME).version == third
        shown = by("ada", "alias", "show", str(NAME))
        assert f"{second} (to epoch 2)" in shown.out
        back = by("ada", "rollback", str(NAME))  # a commit without a load
        assert (back.code, world.catalog.alias(NAME).version) == (0, second)
        assert back.err == f"{NAME}:live is back at {second.short}\n"
        for engine in ("engine-0", "engine-1"):  # which start afresh, and have never seen the first one
            world.catalog.announce(world.engine(engine, boot="boot-0002"), actor=engine)
            finding = world.finding(second, engine=engine, boot="boot-0002")
            world.catalog.attest(attested(finding), actor=engine)
        late = by("ada", "rollback", str(NAME), "--wait", "0.3")
        assert (late.code, "[promotion_not_ready]" in late.err, "2 of 2 engines" in late.err) == (
            1,
            True,
            True,
        )
        assert world.catalog.alias(NAME).version == second
        moved = by("ada", "rollback", str(NAME), "--no-wait")
        assert (moved.code, "Warning: no engine holds it (engines load it first)" in moved.err) == (0, True)
        assert world.catalog.alias(NAME).version == first
        fourth = world.evaluated(seed=4)
        for engine in ("engine-0", "engine-1"):
            world.catalog.announce(world.engine(engine, boot="boot-0002", up=False), actor=engine)
        refused = by("ada", "promote", f"{NAME}@{fourth}", *RULE, "--wait", "0.3")
        assert (refused.code, "[promotion_not_ready]" in refused.err) == (1, True)
        assert "no engine was up" in refused.err
        assert "--no-wait" in refused.err
        assert world.catalog.alias(NAME).version == first
        moved = by("ada", "promote", f"{NAME}@{fourth}", *RULE, "--no-wait")
        assert (moved.code, "all engines of its base are down" in moved.err) == (0, True)
        assert world.catalog.alias(NAME).version == fourth
