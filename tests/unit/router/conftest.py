"""A running router on fakes, with one engine and two tenants."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tests.unit.router.driving import House

SCHEMA = {
    "type": "object",
    "properties": {"zeta": {"type": "string"}, "amount": {"type": "integer"}},
    "required": ["zeta", "amount"],
    "additionalProperties": False,
}


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What touches sockets itself is tested on production's loop, too."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ("test_engines_contract.py", "test_upstream.py"):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


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
