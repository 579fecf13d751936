"""A running router on fakes, with one engine and two tenants."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.router.driving import House

SCHEMA = {
    "type": "object",
    "properties": {"zeta": {"type": "string"}, "amount": {"type": "integer"}},
    "required": ["zeta", "amount"],
    "additionalProperties": False,
}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Nothing published yet; ``engine-0`` is part of the scene."""
    found = House(tmp_path)
    found.scene.engine()
    await found.app.start()
    try:
        yield found
    finally:
        await found.app.stop()


@pytest.fixture
async def bank(house: House) -> str:
    """bank_a's key; its ``assistant`` is served without a schema."""
    secret = house.scene.serve("bank_a")
    await house.publish()
    return secret


@pytest.fixture
async def strict(house: House) -> str:
    """bank_a's key; its ``assistant`` must answer JSON of SCHEMA."""
    secret = house.scene.serve("bank_a", SCHEMA)
    await house.publish()
    return secret
