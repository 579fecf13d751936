"""A key that was revoked opens nothing within two seconds, whichever router is asked."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from registry.models import Role
from server.assembly import stack
from server.settings import inherited_environment
from tests.journeys.conftest import Served

EVERYWHERE = 2.0
"""Seconds: what issue and documentation promise."""


@contextlib.contextmanager
def another_router(
    served: Served, folder: Path, *, end: signal.Signals = signal.SIGTERM, peers: str = ""
) -> Iterator[str]:
    """A second router process on the same control plane, with a record chain of its own."""
    assert served.running is not None
    port = stack.Ports.free().router
    settings = {
        "control_url": served.running.url("control"),
        "router_port": port,
        "router_key_file": served.workspace.key("router"),
        "salt_file": served.workspace.salt,
        "records_dir": folder / "records",
        "writer": f"router-{sha256(bytes(folder)).hexdigest()[:8]}",  # one chain, one name
        "service_token_file": served.workspace.service_token,
    }
    if peers:
        settings["peers"] = peers
    environment = {f"TENON_{name.upper()}": str(value) for name, value in settings.items()}
    with (folder / "router.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli.main", "serve", "router"],
            env=inherited_environment() | environment,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: _status(url + "/readyz") == 200, 60)
        yield url
    finally:
        os.kill(process.pid, end)
        process.wait(30)


@pytest.fixture(scope="module")
def routers(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with another_router(served, tmp_path_factory.mktemp("router-1")) as second:
        yield [served.url, second]


def ask(url: str, secret: str) -> tuple[int, str]:
    answer = httpx.post(
        f"{url}/v1/chat/completions",
        json={"model": "assistant", "messages": [{"role": "user", "content": "hello"}]},
        headers={"Authorization": f"Bearer {secret}"},
        timeout=10,
    )
    code = "" if answer.status_code == 200 else str(answer.json()["error"]["code"])
    return answer.status_code, code


def until(happened: Callable[[], bool], limit: float) -> float:
    """Seconds that it took; fails when it takes longer than ``limit``."""
    began = time.perf_counter()
    while not happened():
        assert time.perf_counter() - began < limit, f"not within {limit} s"
        time.sleep(0.02)
    return time.perf_counter() - began


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=2).status_code
    except httpx.TransportError:
        return 0


def test_a_revoked_key_is_refused_everywhere(served: Served, routers: list[str]) -> None:
    key, secret = served.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    until(lambda: all(ask(url, secret)[0] == 200 for url in routers), EVERYWHERE)
    served.catalog.revoke_key(key.id, actor="test")
    refused = (401, "invalid_api_key")
    until(lambda: all(ask(url, secret) == refused for url in routers), EVERYWHERE)
    assert [ask(url, served.keys["bank_a"])[0] for url in routers] == [200, 200]


def test_a_suspended_tenant_is_refused_everywhere_and_comes_back(served: Served, routers: list[str]) -> None:
    secret = served.keys["saas_c"]
    served.catalog.suspend_tenant("saas_c", reason="unpaid", actor="test")
    try:
        refused = (403, "tenant_suspended")
        until(lambda: all(ask(url, secret) == refused for url in routers), EVERYWHERE)
        assert [ask(url, served.keys["bank_a"])[0] for url in routers] == [200, 200]
    finally:
        served.catalog.resume_tenant("saas_c", actor="test")
    until(lambda: all(ask(url, secret)[0] == 200 for url in routers), EVERYWHERE)
