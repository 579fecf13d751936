import asyncio
from typing import cast

from server.engines.alive import saying_alive
from server.engines.ports import ControlPlane
from server.errors import ControlUnreachable


class Listening:
    """The one call of a control plane that this needs; away the second time."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.often = asyncio.Event()

    async def alive(self, engine: str, boot: str) -> bool:
        self.heard.append((engine, boot))
        if len(self.heard) == 2:
            raise ControlUnreachable("away")
        if len(self.heard) == 4:
            self.often.set()
        return True


async def test_the_word_is_given_again_and_again_until_the_boot_ends() -> None:
    control = Listening()
    async with saying_alive(cast("ControlPlane", control), "engine-0", "boot-0001", every=0.001):
        await control.often.wait()
    said = len(control.heard)
    await asyncio.sleep(0.01)
    assert set(control.heard) == {("engine-0", "boot-0001")}
    assert len(control.heard) == said >= 4
