"""The registry's feed, followed for as long as the agent runs."""

import asyncio
from collections.abc import Callable

from registry.errors import TenonError
from registry.feed import Snapshot, State
from server.engines.cadence import Cadence
from server.engines.ports import ControlPlane


class Following:
    def __init__(self, control: ControlPlane, cadence: Cadence, tell: Callable[[str], None]) -> None:
        self._control = control
        self._cadence = cadence
        self._tell = tell
        self.known: State | None = None
        """The newest; it stays while the control plane is away."""
        self.news = asyncio.Event()
        """Set with every newer state; whoever acts on it clears it first."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            known = self.known
            try:
                news = await self._control.read(known.position if known else None, self._cadence.poll)
                if news is None:
                    continue
                if isinstance(news, Snapshot):
                    self.known = State.of(news)
                elif known is not None:
                    self.known = known.after(news)
            except TenonError as error:
                self._tell(error.message)
                await asyncio.sleep(self._cadence.retry)
                continue
            self.news.set()

    async def until(self, holds: Callable[[State], bool]) -> State:
        """The first state from now on of which ``holds`` is true."""
        while True:
            self.news.clear()
            if self.known is not None and holds(self.known):
                return self.known
            await self.news.wait()
