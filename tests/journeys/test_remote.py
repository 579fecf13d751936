"""Adapters over HTTP as people move them: real command lines, a real socket, a real registry behind it."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.catalog.remote.uploads import PIECE
from registry.digests import Digest
from registry.models import Base, Role
from registry.names import AdapterName
from tests.journeys.commands import Done, surroundings, tenon
from tests.support.adapters import tiny_base, write_adapter
from tests.support.registries import NAME
from tests.support.remote import Remote, remote

FILES = ("adapter_config.json", "adapter_model.safetensors")


class Person:
    """Somebody with a key and a folder, on another machine than the registry's."""

    def __init__(self, found: Remote, home: Path, tenant: str | None, role: Role) -> None:
        home.mkdir()
        self.home = home
        self.environment = {"TENON_CONFIG_DIR": str(home / "config"), "TENON_WORKSPACE": found.url}
        _, secret = found.world.catalog.issue_key(tenant, role=role, actor="test")
        (home / "key").write_text(secret + "\n")
        done = tenon(
            "login", found.url, "--key-file", str(home / "key"), "--json", environment=self.environment
        )
        assert done.code == 0, done.err
        assert json.loads(done.out)["role"] == role.value
        assert secret not in done.out + done.err

    def __call__(self, *arguments: str) -> Done:
        return tenon(*arguments, cwd=self.home, environment=self.environment)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "server.cli.main", *arguments],
            cwd=self.home,
            env=surroundings() | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Remote]:
    with remote(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def trainer(registry: Remote, tmp_path: Path) -> Person:
    return Person(registry, tmp_path / "trainer", "bank_a", Role.TRAINER)


def large_base(registry: Remote) -> Base:
    """A base whose adapters are larger than one piece of an upload."""
    tiny, contract = tiny_base()
    modules = {
        f"model.layers.{layer}.self_attn.{name}": (1024, 1024)
        for layer in range(20)
        for name in ("q_proj", "v_proj")
    }
    base = tiny.model_copy(update={"name": "large", "modules": modules})
    agreed = contract.model_copy(update={"base": base.identity()})
    registry.world.catalog.register_base(base, agreed, actor="test")
    return base


def test_what_was_pushed_is_what_is_pulled(registry: Remote, trainer: Person) -> None:
    pushed = {}
    for number in range(3):
        folder = write_adapter(trainer.home / f"adapter-{number}", tiny_base()[0], seed=number)
        done = trainer("adapter", "push", str(folder), "--as", f"bank_a/task-{number}", "--base", "tiny")
        assert done.code == 0, done.err
        assert "cannot be served without a fingerprint" in done.err
        pushed[folder] = f"bank_a/task-{number}@{done.out.strip()}"
    before = registry.traffic.blob_bytes
    # The three configurations are the same bytes, which travelled once.
    assert before == sum(map(len, {path.read_bytes() for folder in pushed for path in folder.iterdir()}))
    again = trainer("adapter", "push", str(folder), "--as", "bank_a/task-2", "--base", "tiny", "--json")
    assert json.loads(again.out)["version"] == pushed[folder].rpartition("@")[2]
    assert registry.traffic.blob_bytes == before  # nothing travels twice
    for folder, ref in pushed.items():
        target = trainer.home / "pulled" / folder.name
        assert trainer("adapter", "pull", ref, str(target)).code == 0
        assert sorted(path.name for path in target.iterdir()) == sorted(FILES)
        for name in FILES:
            assert (target / name).read_bytes() == (folder / name).read_bytes()
    listed = json.loads(trainer("adapter", "list", "--json").out)
    assert [(row["adapter"], row["state"]) for row in listed] == [
        (f"bank_a/task-{n}", "pushed") for n in range(3)
    ]


def test_a_push_that_was_killed_goes_on_where_it_stopped(
    registry: Remote, trainer: Person, tmp_path: Path
) -> None:
    base = large_base(registry)
    folder = write_adapter(trainer.home / "adapter", base, rank=64)
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert size > 2 * PIECE
    command = ("adapter", "push", str(folder), "--as", "bank_a/large", "--base", "large")
    reached, released = threading.Event(), threading.Event()
    pieces = 0

    async def second_piece_waits(method: str, _path: str) -> None:
        nonlocal pieces
        pieces += method == "PATCH"
        if method == "PATCH" and pieces == 2:
            reached.set()
            await asyncio.to_thread(released.wait, 60)

    registry.traffic.before = second_piece_waits
    process = trainer.start(*command)
    try:
        while not reached.wait(0.1):
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
    finally:
        process.kill()
        released.set()
    assert registry.world.catalog.versions(AdapterName("bank_a", "large")) == ()
    registry.traffic.before = None
    registry.traffic.received.clear()
    registry.traffic.requests.clear()
    done = trainer(*command)
    assert done.code == 0, done.err
    small = (folder / "adapter_config.json").stat().st_size  # goes with the version, which comes last
    assert small < registry.traffic.blob_bytes <= size - PIECE + small
    pulled = trainer.home / "pulled"
    assert trainer("adapter", "pull", f"bank_a/large@{done.out.strip()}", str(pulled)).code == 0
    assert Digest.of_file(pulled / FILES[1]) == Digest.of_file(folder / FILES[1])


def test_of_two_promotions_at_once_one_wins(registry: Remote, tmp_path: Path) -> None:
    versions = [registry.world.evaluated(seed=seed) for seed in (1, 2)]
    admin = Person(registry, tmp_path / "admin", "bank_a", Role.TENANT_ADMIN)

    def promote(version: Digest) -> Done:
        return admin("promote", f"{NAME}@{version}", "--rule", "accuracy>=0.8", "--expect-epoch", "0")

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(promote, versions))
    assert sorted(one.code for one in done) == [0, 1]
    (lost,) = [one for one in done if one.code]
    assert "[alias_moved]" in lost.err
    (won,) = [version for version, one in zip(versions, done, strict=True) if not one.code]
    state = registry.world.catalog.alias(NAME)
    assert (state.version, state.epoch) == (won, 1)


def test_what_a_key_may_not_do(registry: Remote, trainer: Person, tmp_path: Path) -> None:
    version = registry.world.evaluated()
    refused = trainer("promote", f"{NAME}@{version}", "--rule", "accuracy>=0.8")
    assert (refused.code, "[role_not_permitted]" in refused.err) == (1, True)
    assert registry.world.catalog.aliases(NAME) == ()
    asker = Person(registry, tmp_path / "asker", "bank_a", Role.INFERENCE)
    folder = write_adapter(asker.home / "adapter", tiny_base()[0], seed=5)
    for person, name in (
        (asker, "bank_a/assistant"),
        (trainer, "retail_b/assistant"),
        (trainer, "nobody/assistant"),
    ):
        before = registry.world.catalog.snapshot().size
        done = person("adapter", "push", str(folder), "--as", name, "--base", "tiny")
        assert done.code == 1
        assert "Traceback" not in done.err
        assert registry.world.catalog.snapshot().size == before
    assert registry.traffic.blob_bytes == 0


def test_a_gate_that_refuses_exits_with_3_and_its_reasons(registry: Remote, tmp_path: Path) -> None:
    version = registry.world.evaluated()
    admin = Person(registry, tmp_path / "admin", "bank_a", Role.TENANT_ADMIN)
    done = admin("promote", f"{NAME}@{version}", "--rule", "accuracy>=0.99")
    assert done.code == 3
    assert "accuracy" in done.err
    assert "[gate_refused]" in done.err


def test_without_a_registry_or_a_login_it_says_so(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9"  # discard: nothing listens there
    (tmp_path / "key").write_text("tn_" + "0" * 16 + "_" + "a" * 43)
    config = {"TENON_CONFIG_DIR": str(tmp_path / "config")}
    unknown = tenon("tenant", "list", "-w", url, environment=config)
    assert (unknown.code, "[not_logged_in]" in unknown.err) == (1, True)
    assert f"tenon login {url}" in unknown.err
    there = {"TENON_WORKSPACE": url, "TENON_KEY_FILE": str(tmp_path / "key")}
    silent = tenon("tenant", "list", environment=config | there)
    assert (silent.code, "[registry_unreachable]" in silent.err) == (4, True)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
