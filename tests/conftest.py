"""For every suite: nothing may be skipped quietly, and nothing talks to a network."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import s3 as s3_support
from tests.support.postgres import PostgresServer, running
from tests.support.stores import KINDS, fresh


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="A skipped test fails the run (CI)")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, or with several workers one would wait for the other at the end."""
    turns: dict[Path, int] = {}
    for item in items:
        turn = 0 if item.get_closest_marker("engine") else 1 if item.get_closest_marker("slow") else 2
        turns[item.path] = min(turns.get(item.path, 2), turn)
    items.sort(key=lambda item: turns[item.path])


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches out is a test that fails on somebody's train ride."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        loopback = address[0] in ("::1", "localhost") or address[0].startswith("127.")
        if self.family in (socket.AF_INET, socket.AF_INET6) and not loopback:
            raise RuntimeError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Starts with the first test that asks for it; databases of it are fresh for each test."""
    with running() as server:
        yield server


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a new registry database, on each kind in turn: see ``tests.support.stores.connect``."""
    with fresh(request.param, tmp_path, lambda: request.getfixturevalue("postgres")) as address:
        yield address


@pytest.fixture(scope="session")
def s3() -> Iterator[s3_support.S3Server]:
    """Starts with the first test that asks for it; every test makes its own bucket."""
    with s3_support.running() as server:
        yield server
