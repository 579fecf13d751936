from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.registries import World, open_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = open_world(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def anywhere(tmp_path: Path, store: str) -> Iterator[World]:
    """A world on each kind of database in turn."""
    made = open_world(tmp_path, store=store)
    yield made
    made.database.close()
