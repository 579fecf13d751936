"""The real processes, started with only what the chart gives them: command, environment, secrets, volumes.

Only addresses and the places of volumes differ from a pod. Engines have their own tests (tests/engine).
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.assembly.catalog import initialise
from server.workspace import Workspace
from tests.chart.charts import Chart, Release

TENON = [sys.executable, "-c", "import sys; from server.cli.main import main; sys.exit(main())"]
PLACES = {"control": "/var/lib/tenon/", "router": "/var/lib/tenon/", "migrations": "/var/lib/tenon/"}
SECRETS = "/etc/tenon/secrets/"
ENGINES = "/etc/tenon/engines/"
KEPT_OUT = ("engine.key", "router.key", "salt", "service-token")
"""Of a workspace's secrets: what docs/guides/kubernetes.md puts into the Secret, not onto the volume."""


class Pods:
    """Stands in for the kubelet: one folder per volume, loopback for the network."""

    def __init__(self, release: Release, folder: Path) -> None:
        self._release = release
        self._folder = folder
        self._ports = {name: _free_port() for name in ("control", "router")}
        self._running: list[subprocess.Popen[bytes]] = []

    def volume(self, component: str) -> Path:
        owner = "control" if component == "migrations" else component
        place = self._folder / owner
        place.mkdir(exist_ok=True)
        return place

    def secrets(self, component: str, workspace: Workspace) -> None:
        """The keys that the component's volume names, as the kubelet mounts them."""
        whole = {
            "service-token": workspace.service_token,
            "router-key": workspace.key("router"),
            "engine-key": workspace.key("engine"),
            "salt": workspace.salt,
        }
        (volume,) = [
            one for one in self._release.pods[component]["spec"]["volumes"] if one["name"] == "secrets"
        ]
        place = self._folder / f"{component}-secrets"
        place.mkdir()
        for item in volume["secret"]["items"]:
            shutil.copyfile(whole[item["key"]], place / item["path"])
            (place / item["path"]).chmod(volume["secret"]["defaultMode"])

    def engines(self) -> None:
        """The list of engines, as its ConfigMap is mounted."""
        place = self._folder / "engines"
        place.mkdir()
        (config,) = [one for one in self._release.of("ConfigMap") if "engines.yaml" in one["data"]]
        (place / "engines.yaml").write_text(config["data"]["engines.yaml"])

    def start(self, name: str) -> "subprocess.Popen[bytes]":
        command = self._release.container(name)["command"]
        assert command[0] == "tenon"
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                TENON + [self._here(name, word) for word in command[1:]],
                env={"PATH": os.environ["PATH"], "HOME": str(self._folder), **self._environment(name)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._running.append(process)
        return process

    def said(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def status(self, name: str, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[name]}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def wait(self, name: str, path: str, process: "subprocess.Popen[bytes]", *, status: int = 200) -> None:
        """Until the path answers so, as a startup probe would."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert process.poll() is None, self.said(name)
            try:
                if self.status(name, path) == status:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        pytest.fail(f"{name} did not answer {path}:\n{self.said(name)}")

    def stop(self) -> None:
        for process in self._running:
            process.kill()
            process.wait(10)

    def _environment(self, name: str) -> dict[str, str]:
        given = {key: self._here(name, value) for key, value in self._release.environment(name).items()}
        moved = {
            "TENON_HOST": "127.0.0.1",
            "TENON_CONTROL_PORT": str(self._ports["control"]),
            "TENON_ROUTER_PORT": str(self._ports["router"]),
            "TENON_CONTROL_URL": f"http://127.0.0.1:{self._ports['control']}",
        }
        return given | {key: value for key, value in moved.items() if key in given}

    def _here(self, name: str, text: str) -> str:
        text = text.replace(PLACES[name], f"{self.volume(name)}/")
        text = text.replace(ENGINES, f"{self._folder / 'engines'}/")
        return text.replace(SECRETS, f"{self._folder / f'{name}-secrets'}/")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def pods(chart: Chart, tmp_path: Path) -> Iterator[Pods]:
    running = Pods(chart.render("minimal"), tmp_path)
    yield running
    running.stop()


def seed(pods: Pods, folder: Path) -> Workspace:
    """What docs/guides/kubernetes.md does: secrets to the Secret, the rest onto the volume."""
    workspace = initialise(folder)
    shutil.copytree(
        workspace.root, pods.volume("control") / "workspace", ignore=shutil.ignore_patterns(*KEPT_OUT)
    )
    return workspace


def probes(release: Release, name: str) -> dict[str, str]:
    container = release.container(name)
    return {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}


def test_control_and_router_start_answer_their_probes_and_stop(
    pods: Pods, chart: Chart, tmp_path: Path
) -> None:
    workspace = seed(pods, tmp_path / "made-elsewhere")
    release = chart.render("minimal")
    pods.secrets("control", workspace)
    pods.secrets("router", workspace)
    pods.engines()
    assert pods.start("migrations").wait(60) == 0, pods.said("migrations")

    running = {}
    for name in ("control", "router"):
        running[name] = pods.start(name)
        pods.wait(name, probes(release, name)["livenessProbe"], running[name])
        assert pods.status(name, "/metrics") == 200
    assert pods.status("control", probes(release, "control")["readinessProbe"]) == 200
    # no engine is attested yet: a router without one takes no traffic, and says so at the chart's path
    assert pods.status("router", probes(release, "router")["readinessProbe"]) == 503
    pods.wait("router", "/v1/models", running["router"], status=401)  # once it has the registry's state
    assert (pods.volume("router") / "records" / "tenon-router-0").is_dir()

    for name in ("router", "control"):
        running[name].send_signal(signal.SIGTERM)
        grace = release.pods[name]["spec"]["terminationGracePeriodSeconds"]
        assert running[name].wait(grace) in {0, -signal.SIGTERM}, pods.said(name)


def test_an_empty_volume_is_refused_with_the_next_step(pods: Pods) -> None:
    """A workspace made up in the cluster would trust keys that no router or engine has."""
    assert pods.start("migrations").wait(60) == 1
    assert "no workspace at" in pods.said("migrations")
