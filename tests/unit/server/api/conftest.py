"""The control API over a real SQLite registry: one a test, or one a module for tests that only ask."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control import ControlWorld, control_world


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ControlWorld]:
    with control_world(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlWorld]:
    with control_world(tmp_path_factory.mktemp("shared")) as made:
        yield made
