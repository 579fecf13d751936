"""One control API a test, over a real SQLite registry."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control import ControlWorld, control_world


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ControlWorld]:
    with control_world(tmp_path) as made:
        yield made
