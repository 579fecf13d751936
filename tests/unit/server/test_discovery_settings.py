"""From settings to sources, the thread that follows them, and what a command beside the registry shows."""

import json
import threading
from pathlib import Path

import pytest

from registry.catalog.fleet import Doubt, Missing
from server.assembly.discovery import discoveries, following, with_expected
from server.cli.fleet import _long
from server.engines.discovery.kubernetes import Kubernetes
from server.engines.discovery.static import StaticList
from server.errors import SettingsInvalid
from server.settings import DiscoverySettings
from server.testing.fake_kubernetes import FakeKubernetes, endpoint
from tests.journeys.commands import tenon_here
from tests.support.clusters import service_account, until
from tests.support.registries import open_world


def engines_file(folder: Path, *names: str) -> Path:
    file = folder / "engines.yaml"
    engines = [{"name": name, "base": "tiny"} for name in names]
    file.write_text(json.dumps({"kind": "tenon.engines/v1", "engines": engines}))
    return file


def test_nothing_is_expected_unless_it_is_asked_for() -> None:
    assert discoveries(DiscoverySettings()) == ()


def test_both_sources_may_be_on(tmp_path: Path) -> None:
    found = discoveries(
        DiscoverySettings(
            engines_file=engines_file(tmp_path, "engine-0"),
            kubernetes_services="tenon-engine,tenon-engine-large",
            kubernetes_account=service_account(tmp_path / "account"),
        )
    )
    assert [type(each) for each in found] == [StaticList, Kubernetes]


def test_settings_that_cannot_work_are_told_at_start_and_name_no_path(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="TENON_ENGINES_FILE cannot be read: No such file"):
        discoveries(DiscoverySettings(engines_file=tmp_path / "none"))
    (tmp_path / "bad").write_text("kind: nonsense")
    with pytest.raises(SettingsInvalid, match=r"TENON_ENGINES_FILE: .*kind"):
        discoveries(DiscoverySettings(engines_file=tmp_path / "bad"))
    with pytest.raises(SettingsInvalid, match="no service account"):
        discoveries(DiscoverySettings(kubernetes_services="e", kubernetes_account=tmp_path / "none"))


async def test_kubernetes_is_followed_in_a_thread_that_ends(tmp_path: Path) -> None:
    api = FakeKubernetes()
    async with api.serving() as url:
        settings = DiscoverySettings(
            kubernetes_services="tenon-engine",
            kubernetes_url=url,
            kubernetes_account=service_account(tmp_path / "account"),
        )
        found = discoveries(settings)
        with following(found):
            await api.put("a", endpoint("engine-0", "10.1.0.5"))
            await until(lambda: "engine-0" in found[0].look().engines)
            names = {thread.name for thread in threading.enumerate()}
            assert "tenon-discovery" in names
        assert "tenon-discovery" not in {thread.name for thread in threading.enumerate()}


async def test_what_nobody_thought_of_does_not_end_the_following(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.assembly.discovery._AGAIN", 0.01)
    calls = []

    async def follow(_: Kubernetes) -> None:
        calls.append(1)
        raise AssertionError("nobody thought of this")

    monkeypatch.setattr(Kubernetes, "follow", follow)
    account = service_account(tmp_path / "account")
    found = discoveries(DiscoverySettings(kubernetes_services="e", kubernetes_account=account))
    with following(found):
        await until(lambda: len(calls) > 2)
    assert "could not be discovered" in caplog.text


def test_a_command_beside_the_registry_looks_for_itself(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    try:
        for name in ("engine-0", "engine-9"):
            world.catalog.announce(world.engine(name, boot=f"{name}-boot"), actor="test")
        settings = DiscoverySettings(
            engines_file=engines_file(tmp_path, "engine-0", "engine-1"),
            kubernetes_services="e",
            kubernetes_url="http://127.0.0.1:9",  # nobody answers: it says nothing
            kubernetes_account=service_account(tmp_path / "account"),
        )
        shown = with_expected(world.catalog.fleet(), world.catalog, settings)
        assert shown.missing == (Missing(engine="engine-1", base="tiny"),)
        assert [(each.engine, each.why) for each in shown.doubted] == [("engine-9", Doubt.NOT_LISTED)]
    finally:
        world.database.close()


def test_the_fleet_command_shows_who_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = tmp_path / "ws"
    assert tenon_here("init", str(workspace)).code == 0
    monkeypatch.setenv("TENON_ENGINES_FILE", str(engines_file(tmp_path, "engine-0")))
    done = tenon_here("fleet", "-w", str(workspace))
    assert done.code == 0, done.err
    assert "engine-0" in done.out
    assert "never announced" in done.out
    done = tenon_here("fleet", "--json", "-w", str(workspace))
    assert json.loads(done.out)["missing"] == [
        {"engine": "engine-0", "base": "tiny", "announced": False, "seconds": None}
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.4, "0 s"), (119.9, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h")],
)
def test_how_long_is_told_in_one_unit(seconds: float | None, text: str) -> None:
    assert _long(seconds) == text
