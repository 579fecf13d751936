"""The container beside a router that copies its records out: what it may, what it is told, its patience."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from registry.signing.keys import Signer
from server.assembly.catalog import initialise, open_catalog
from server.settings import ShipSettings, load
from tests.chart.charts import Chart, Release
from tests.chart.test_network import INTERNET, Pod, may, ours
from tests.chart.test_processes import TENON
from tests.support import chains

STORE = Pod("", address="10.20.0.7")


def environment(release: Release) -> dict[str, str]:
    return {one["name"]: one["value"] for one in release.container("ship")["env"]}


@pytest.fixture
def to_registry(chart: Chart) -> Release:
    return chart.render("minimal", "router.ship.to=registry")


def test_nothing_is_shipped_unless_asked_for(chart: Chart) -> None:
    assert [one["name"] for one in chart.render("minimal").pods["router"]["spec"]["containers"]] == ["router"]


def test_it_ships_where_the_records_are_written(chart: Chart, to_registry: Release) -> None:
    for release in (chart.render("pools"), to_registry):
        written = release.environment("router")["TENON_RECORDS_DIR"]
        assert environment(release)["TENON_RECORDS_DIR"] == written
        ship, router = release.container("ship"), release.container("router")
        assert {"name": "records", "mountPath": "/var/lib/tenon"} in ship["volumeMounts"]
        assert {"name": "records", "mountPath": "/var/lib/tenon"} in router["volumeMounts"]
        assert ship["image"] == router["image"]
        assert ship["command"] == ["tenon", "record", "ship"]


def test_it_holds_no_key_of_the_routers(chart: Chart, to_registry: Release) -> None:
    for release in (chart.render("pools"), to_registry):
        mounted = {mount["name"] for mount in release.container("ship")["volumeMounts"]}
        assert "secrets" not in mounted
        secrets = {
            item["key"]
            for volume in release.pods["router"]["spec"]["volumes"]
            if volume["name"] in mounted and "secret" in volume
            for item in volume["secret"]["items"]
        }
        assert secrets == ({"service-token"} if release is to_registry else {"credentials"})


def test_every_volume_of_the_pod_is_mounted(chart: Chart, to_registry: Release) -> None:
    for release in (chart.render("pools"), to_registry, chart.render("gpu", "router.ship.to=registry")):
        spec = release.pods["router"]["spec"]
        mounts = {mount["name"] for one in spec["containers"] for mount in one["volumeMounts"]}
        assert mounts == {volume["name"] for volume in spec["volumes"]} | {"records"}


def test_the_settings_are_those_of_the_command(
    chart: Chart, to_registry: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("TENON_")]:
        monkeypatch.delenv(name)
    known = {f"TENON_{name.upper()}" for name in ShipSettings.model_fields}
    for release in (chart.render("pools", "control.s3.endpoint=https://s3.example"), to_registry):
        given = environment(release)
        assert given.keys() <= known
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        read = load(ShipSettings)
        assert read.ship_seconds == (60 if release is to_registry else 300)
        if release is not to_registry:
            assert (read.ship_to, read.s3_bucket) == ("s3:records/", "adapters")
            assert read.s3_endpoint == "https://s3.example"
        for name in given:
            monkeypatch.delenv(name)


def test_only_what_is_named_is_let_out_for_it(chart: Chart, to_registry: Release) -> None:
    pools = chart.render("pools")
    assert may(pools, ours(pools, "router"), STORE, 443)
    assert not may(pools, ours(pools, "router"), INTERNET, 443)
    assert not may(to_registry, ours(to_registry, "router"), STORE, 443)
    assert may(to_registry, ours(to_registry, "router"), ours(to_registry, "control"), 8401)


def test_it_goes_on_while_the_registry_is_away(to_registry: Release, tmp_path: Path) -> None:
    """A container that ends again and again would make its router unready."""
    workspace = initialise(tmp_path / "workspace")
    key = Signer.load(workspace.key("router"))
    given = environment(to_registry) | {
        "TENON_RECORDS_DIR": str(workspace.records),
        "TENON_CONTROL_URL": "http://127.0.0.1:9",
        "TENON_SERVICE_TOKEN_FILE": str(workspace.service_token),
        "TENON_SHIP_SECONDS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "signer", lambda _: key)
        chains.grow(workspace.records / "router-0", ["bank_a"] * 5, open_catalog(workspace), more=1)
    said = tmp_path / "said"
    with said.open("wb") as log:
        process = subprocess.Popen(
            TENON + to_registry.container("ship")["command"][1:],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **given},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while said.read_text().count("[control_unreachable]") < 2:
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait(10)
