"""``tenon fleet`` and ``tenon tenant isolate``: what a person is shown of the engines, and moves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from registry.digests import Digest
from registry.fingerprint import Nearest
from registry.models import Role
from registry.names import AdapterName
from tests.journeys.commands import Done, tenon_here
from tests.support.registries import World, attested
from tests.support.remote import remote


class Scene(NamedTuple):
    world: World
    sure: Digest
    weak: Digest


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Two engines; a version that both hold, and one that one of them cannot tell from another."""
    monkeypatch.chdir(tmp_path)
    with remote(tmp_path / "registry") as found:
        world = found.world
        sure, weak = world.promoted(), world.promoted(AdapterName("retail_b", "ledger"), seed=1)
        for name in ("engine-0", "engine-1"):
            world.catalog.announce(world.engine(name), actor=name)
            world.catalog.attest(attested(world.finding(sure, engine=name)), actor=name)
        alike = {"strength": "weak", "nearest": Nearest(what=str(sure), distance=2e-6)}
        world.catalog.attest(attested(world.finding(weak).model_copy(update=alike)), actor="engine-0")
        _, secret = world.catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="test")
        (tmp_path / "key").write_text(secret)
        monkeypatch.setenv("TENON_WORKSPACE", found.url)
        monkeypatch.setenv("TENON_KEY_FILE", str(tmp_path / "key"))
        yield Scene(world, sure, weak)


def said(done: Done) -> Any:
    assert done.code == 0, done.err
    return json.loads(done.out)


def _held(engine: dict[str, Any]) -> dict[str, tuple[bool, str | None]]:
    return {each["version"]: (each["attested"], each["strength"]) for each in engine["held"]}


def test_the_fleet_shows_how_surely_each_version_was_recognised(scene: Scene) -> None:
    engines = {each["state"]["engine"]: each for each in said(tenon_here("fleet", "--json"))["engines"]}
    assert _held(engines["engine-0"]) == {scene.sure: (True, "exact"), scene.weak: (True, "weak")}
    assert _held(engines["engine-1"]) == {scene.sure: (True, "exact"), scene.weak: (False, None)}
    shown = tenon_here("fleet")
    assert shown.code == 0
    rows = [line.split() for line in shown.out.splitlines()]
    held = {(row[0], row[2]): row[-1] for row in rows if len(row) > 3 and "/" in row[1]}
    assert held[("engine-0", scene.sure.short)] == "yes"
    assert held[("engine-0", scene.weak.short)] == "weakly"
    assert held[("engine-1", scene.weak.short)] == "yet", "not yet"
    assert "Weakly attestable: 1" in shown.err + shown.out
    # A finding that is said again counts as it is said then.
    world = scene.world
    again = world.finding(scene.weak).model_copy(update={"observed_at": "2026-01-02T00:00:00.000000Z"})
    world.catalog.attest(attested(again), actor="engine-0")
    assert "weakly" not in tenon_here("fleet").out


def test_the_fleet_says_why_an_engine_does_not_serve_what_it_should(scene: Scene) -> None:
    world = scene.world
    failed = world.finding(scene.weak, engine="engine-1", passed=False)
    reason = "0.4 from its own reference"
    world.catalog.attest(attested(failed.model_copy(update={"reason": reason})), actor="engine-1")
    engines = {each["state"]["engine"]: each for each in said(tenon_here("fleet", "--json"))["engines"]}
    (bad,) = [each for each in engines["engine-1"]["held"] if each["version"] == scene.weak]
    assert (bad["attested"], bad["failed"]) == (False, reason)
    assert not any("failed" in each for each in engines["engine-0"]["held"])
    shown = tenon_here("fleet")
    row = next(
        line.split()
        for line in shown.out.splitlines()
        if line.split()[:1] == ["engine-1"] and scene.weak.short in line
    )
    assert row[-1] == "failed"
    assert f"engine-1 does not serve retail_b/ledger@{scene.weak.short}: {reason}" in shown.err
    assert "publish it again or restart the engine" in shown.err
    _, secret = world.catalog.issue_key("retail_b", role=Role.TENANT_ADMIN, actor="test")
    Path("key").write_text(secret)
    refused = tenon_here("fleet")
    assert refused.code != 0
    assert reason not in refused.out + refused.err


def test_the_fleet_says_why_a_version_is_nowhere(scene: Scene) -> None:
    world = scene.world
    full = world.promoted(AdapterName("retail_b", "third"), seed=2)
    for name in ("engine-0", "engine-1"):
        small = world.engine(name, boot="boot-0002").model_copy(update={"max_loras": 1})
        world.catalog.announce(small, actor=name)
    shown = tenon_here("fleet").err
    assert shown.count("No engine has room for ") == 1
    for name in ("engine-0", "engine-1"):
        small = world.engine(name, boot="boot-0002", up=False).model_copy(update={"max_loras": 1})
        world.catalog.announce(small, actor=name)
    shown = tenon_here("fleet").err
    assert f"All engines for retail_b/third@{full.short} (live) are down" in shown
    assert "room" not in shown


def test_an_engine_whose_boot_is_for_smaller_ranks_shows_both(scene: Scene) -> None:
    world = scene.world
    small = world.engine("engine-0", boot="boot-0002").model_copy(update={"max_rank": 64, "slot_rank": 16})
    world.catalog.announce(small, actor="engine-0")
    assert "16 of 64" in tenon_here("fleet").out


def test_a_version_that_no_engine_is_large_enough_for_is_told_so(scene: Scene) -> None:
    world = scene.world
    for name in ("engine-0", "engine-1"):
        small = world.engine(name, boot="boot-0002").model_copy(update={"max_rank": 2})
        world.catalog.announce(small, actor=name)
    shown = tenon_here("fleet").err
    assert shown.count("No engine is for adapters of the rank of ") == 2
    assert "TENON_MAX_LORA_RANK" in shown
    assert {each["because"] for each in said(tenon_here("fleet", "--json"))["unplaced"]} == {"rank"}
    ref = f"bank_a/assistant@{scene.sure}"
    assert said(tenon_here("adapter", "show", ref, "--json"))["because"] == "rank"
    told = " ".join(tenon_here("adapter", "show", ref).out.split())
    assert "none is for adapters of its rank: start an engine" in told
    for name in ("engine-0", "engine-1"):
        world.catalog.announce(world.engine(name, boot="boot-0003"), actor=name)
    assert said(tenon_here("adapter", "show", ref, "--json"))["because"] is None
    assert "none is for adapters" not in tenon_here("adapter", "show", ref).out


def test_a_tenant_is_moved_by_one_command_and_the_fleet_shows_where(scene: Scene) -> None:
    pinned = tenon_here("tenant", "isolate", "bank_a", "--level", "pinned")
    assert pinned.code == 0, pinned.err
    engines = said(tenon_here("fleet", "--json"))["engines"]
    assert {each["version"] for engine in engines for each in engine["held"] if each["pinned"]} == {
        scene.sure
    }
    assert "live, pinned" in tenon_here("fleet").out

    given = said(tenon_here("tenant", "isolate", "bank_a", "--level", "dedicated", "--json"))
    (name,) = given["engines"]
    assert given["unclean"] == [scene.world.engine(name).boot]
    assert name in tenon_here("fleet").out
    row = next(line for line in tenon_here("fleet").out.splitlines() if line.split()[:1] == [name])
    assert row.split()[-1] == "bank_a"
    last = tenon_here("tenant", "isolate", "retail_b", "--level", "merged", "--engine", name)
    assert last.code != 0
    assert "engine_given" in last.err
    back = tenon_here("tenant", "isolate", "bank_a", "--level", "shared")
    assert back.code == 0, back.err
    assert tenon_here("tenant", "isolate", "bank_a", "--level", "alone").code == 2
