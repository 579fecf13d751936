"""A catalog of each kind, with the same things in it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from registry.blobs.filesystem import FilesystemBlobs
from tests.support.registries import World, open_world
from tests.support.remote import remote_world
from tests.support.stores import fresh

CATALOGS = ("sqlite", "files", "postgresql", "remote")
"""SQLite with blobs in memory and in files; PostgreSQL; and the one in files again, over HTTP."""


@pytest.fixture(params=CATALOGS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        if request.param == "remote":
            yield stack.enter_context(remote_world(tmp_path))
            return
        address = None
        if request.param == "postgresql":
            server = lambda: request.getfixturevalue("postgres")  # noqa: E731 (asked only if needed)
            address = stack.enter_context(fresh("postgresql", tmp_path, server))
        blobs = FilesystemBlobs(tmp_path / "blobs") if request.param == "files" else None
        made = open_world(tmp_path, store=address, blobs=blobs)
        stack.callback(made.database.close)
        yield made
