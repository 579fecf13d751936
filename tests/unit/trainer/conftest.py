"""One tiny base for all tests of the trainer."""

from pathlib import Path

import pytest

from registry.bases import describe
from registry.models import Base
from tests.support.tiny_model import write_tiny_base
from trainer.testing import InMemoryCatalog


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-base")
    write_tiny_base(folder)
    return folder


@pytest.fixture(scope="session")
def base(base_folder: Path) -> Base:
    return describe(base_folder, name="tiny", revision="r1")


@pytest.fixture
def catalog(base: Base, base_folder: Path) -> InMemoryCatalog:
    from trainer.learning.contract import make_contract

    memory = InMemoryCatalog(tenants=frozenset({"bank_a"}))
    memory.register_base(base, make_contract(base.identity(), base_folder))
    return memory
