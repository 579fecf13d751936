"""A fleet of two bases whose engines are listed: one router serves both, and neither base's engines ever get
the other's versions; an engine that nobody listed stays outside until somebody does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from registry.bases import describe
from registry.digests import Digest
from registry.models import Policy, Role, Route, Tenant
from registry.names import AdapterName
from server.assembly.catalog import initialise, open_catalog
from server.demo.build_base import SHIPPED_BASE, SHIPPED_STUDENT
from server.testing.fake_model import fake_contract, signature, signed_by, weights_of
from server.workspace import Workspace
from tests.journeys.conftest import GATE, Served, evaluated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # a lease has to lapse, too

BASES = {"demo": SHIPPED_BASE, "demo-student": SHIPPED_STUDENT}
ADAPTERS = {"big": "demo", "small": "demo-student"}
"""Adapter (and model) of every tenant -> its base."""
TENANTS = ("bank_a", "retail_b")


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Processes:
    """Each started by itself, as in a cluster."""

    folder: Path
    workspace: Workspace
    control: str = field(default_factory=lambda: f"http://127.0.0.1:{_port()}")
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    vllm: dict[str, str] = field(default_factory=dict)
    """Engine -> URL of its fake vLLM."""

    @property
    def engines_file(self) -> Path:
        return self.folder / "engines.yaml"

    def expect(self, bases: Mapping[str, str]) -> None:
        engines = [{"name": name, "base": base} for name, base in bases.items()]
        fresh = self.folder / "engines.new"
        fresh.write_text(json.dumps({"kind": "tenon.engines/v1", "engines": engines}))
        fresh.replace(self.engines_file)

    def start(self, name: str, kind: str, url: str, **settings: object) -> None:
        known = {"service_token_file": self.workspace.service_token, "control_url": self.control, **settings}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "server.cli.main", "serve", kind, "--tied"],
                env={key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
                | {f"TENON_{key.upper()}": str(value) for key, value in known.items()},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(lambda: answers(url) or self.running[name].poll() is not None)
        assert self.running[name].poll() is None, self.said(name)

    def engine(self, name: str, base: str) -> None:
        agent, vllm = _port(), _port()
        self.vllm[name] = f"http://127.0.0.1:{vllm}"
        self.start(
            name, "engine", f"http://127.0.0.1:{agent}/healthz",
            engine=name, agent_port=agent, vllm_port=vllm, engine_key_file=self.workspace.key("engine"),
            cache_dir=self.folder / f"cache-{name}", base=BASES[base], base_name=base, device="cpu",
            dtype="float32", max_loras=4, max_lora_rank=16, fake_engine=1,
        )  # fmt: skip

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def kill(self, name: str) -> None:
        self.running[name].send_signal(signal.SIGKILL)
        self.running[name].wait(10)

    def stop(self) -> None:
        for process in reversed(self.running.values()):
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def until(holds: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@dataclass
class Fleet:
    served: Served
    processes: Processes
    router: str
    admin: str
    signed: dict[tuple[str, str], str] = field(default_factory=dict)
    """(tenant, model) -> how its adapter signs."""
    versions: dict[tuple[str, str], Digest] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.admin}"}
        found: dict[str, Any] = httpx.get(f"{self.processes.control}/api/v1/fleet", headers=headers).json()
        return found

    def up(self) -> set[str]:
        return {each.engine for each in self.served.catalog.engines() if each.up}

    def on(self, key: tuple[str, str]) -> set[str]:
        return {slot.engine for slot in self.served.catalog.slots(self.versions[key])}

    def held(self, engine: str) -> set[str]:
        """What the engine itself says it has loaded."""
        listed = httpx.get(f"{self.processes.vllm[engine]}/v1/models").json()["data"]
        return {model["id"] for model in listed}

    def ask(self, tenant: str, model: str) -> set[str]:
        with self.client(tenant) as client:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "pay"}], max_tokens=64
            )
        return signed_by(answer.choices[0].message.content or "")

    def heard(self, tenant: str, model: str) -> bool:
        """Whether the router knows of an engine for it by now; an answer must be the right one at once."""
        try:
            assert self.ask(tenant, model) == {self.signed[tenant, model]}
        except openai.InternalServerError as error:
            if error.status_code != 503:
                raise
            return False
        return True

    def client(self, tenant: str) -> openai.OpenAI:
        key = self.served.keys[tenant]
        return openai.OpenAI(base_url=f"{self.router}/v1", api_key=key, max_retries=0, timeout=30)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    workspace = initialise(tmp_path / "workspace")
    served = Served(workspace, open_catalog(workspace))
    for name, folder in BASES.items():
        base = describe(folder, name=name, revision="local")
        served.catalog.register_base(base, fake_contract(base), actor="test")
    _, admin = served.catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="test")
    made = Fleet(served, Processes(tmp_path, workspace), f"http://127.0.0.1:{_port()}", admin)
    for number, tenant in enumerate(TENANTS):
        served.catalog.create_tenant(Tenant(id=tenant, display_name=tenant), actor="test")
        served.keys[tenant] = served.catalog.issue_key(tenant, role=Role.INFERENCE, actor="test")[1]
        policy = served.catalog.publish_policy(Policy(tenant=tenant, name="open"), actor="test")
        routes = []
        for adapter, name in ADAPTERS.items():
            folder = tmp_path / "adapters" / tenant / adapter
            folder.parent.mkdir(parents=True, exist_ok=True)
            version = evaluated(served, tenant, folder, seed=number, on=name, adapter=adapter)
            served.catalog.promote(AdapterName(tenant, adapter), version, gate=GATE, actor="test")
            made.versions[tenant, adapter] = version
            made.signed[tenant, adapter] = signature(weights_of(folder))
            routes.append(Route(tenant=tenant, name=adapter, model=adapter, adapter=adapter, policy=policy))
        served.catalog.publish_routing(tenant, routes=routes, actor="test")
    processes = made.processes
    processes.expect({"engine-a": "demo", "engine-b": "demo-student"})
    try:
        processes.start(
            "control", "control", f"{processes.control}/healthz",
            control_port=processes.control.rpartition(":")[2], workspace=workspace.root, engine_silence=15,
            engines_file=processes.engines_file,
        )  # fmt: skip
        processes.start(
            "router", "router", f"{made.router}/healthz",
            router_port=made.router.rpartition(":")[2], router_key_file=workspace.key("router"),
            salt_file=workspace.salt, records_dir=workspace.records,
        )  # fmt: skip
        yield made
    finally:
        processes.stop()


def test_one_router_serves_two_bases_and_never_mixes_them(fleet: Fleet) -> None:
    processes = fleet.processes
    until(lambda: len(fleet.shown()["missing"]) == 2)
    assert [each["announced"] for each in fleet.shown()["missing"]] == [False, False]
    processes.engine("engine-a", "demo")
    processes.engine("engine-b", "demo-student")
    processes.engine("engine-c", "demo-student")  # nobody listed it
    where = {"big": {"engine-a"}, "small": {"engine-b"}}
    until(lambda: all(fleet.on(key) == where[key[1]] for key in fleet.versions), processes.said("engine-b"))
    until(lambda: all(fleet.heard(*key) for key in fleet.versions))
    assert fleet.shown()["missing"] == []

    for tenant in TENANTS:
        with fleet.client(tenant) as client:
            assert {model.id for model in client.models.list()} == set(ADAPTERS)
        for _ in range(5):
            for model in ADAPTERS:
                assert fleet.ask(tenant, model) == {fleet.signed[tenant, model]}
    # Not by the router's word alone: neither engine was ever given the other base's versions.
    for engine, adapter in (("engine-a", "big"), ("engine-b", "small")):
        own = {str(version) for key, version in fleet.versions.items() if key[1] == adapter}
        others = {str(version) for key, version in fleet.versions.items() if key[1] != adapter}
        loaded = fleet.held(engine)
        assert all(any(version.removeprefix("sha256:") in name for name in loaded) for version in own)
        assert not any(version.removeprefix("sha256:") in name for version in others for name in loaded)

    # The unlisted one was kept outside, by its name and for all that it is healthy.
    assert "engine-c" not in {each.engine for each in fleet.served.catalog.engines()}
    until(lambda: "engine-c is refused: not listed" in processes.said("control"))
    processes.kill("engine-b")
    until(lambda: fleet.up() == {"engine-a"})
    with fleet.client("bank_a") as client, pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model="small", messages=[{"role": "user", "content": "pay"}])
    assert refused.value.status_code == 503
    assert fleet.ask("bank_a", "big") == {fleet.signed["bank_a", "big"]}
    (missing,) = fleet.shown()["missing"]
    assert (missing["engine"], missing["base"], missing["announced"]) == ("engine-b", "demo-student", True)

    # Listed, with the wrong base at first, it takes the dead one's place without a restart of anything.
    processes.expect({"engine-a": "demo", "engine-c": "demo"})
    until(lambda: "engine-c is refused: listed with another base" in processes.said("control"))
    assert fleet.up() == {"engine-a"}
    processes.expect({"engine-a": "demo", "engine-c": "demo-student"})
    until(lambda: all(fleet.on((tenant, "small")) == {"engine-c"} for tenant in TENANTS))

    until(lambda: all(fleet.heard(tenant, "small") for tenant in TENANTS))
    # And whoever is taken off the list is taken out.
    processes.expect({"engine-c": "demo-student"})
    until(lambda: fleet.up() == {"engine-c"})
    until(lambda: not any(fleet.heard(tenant, "big") for tenant in TENANTS))
    with fleet.client("bank_a") as client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="big", messages=[{"role": "user", "content": "pay"}])
