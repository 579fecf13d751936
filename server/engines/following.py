"""The registry's feed, followed for as long as the agent runs."""

import asyncio
import logging
from collections.abc import Callable

from registry.errors import TenonError
from registry.feed import Snapshot, State
from server.engines.cadence import Cadence
from server.engines.ports import ControlPlane

_log = logging.getLogger("tenon.engine")


class Following:
    def __init__(self, control: ControlPlane, cadence: Cadence, tell: Callable[[str], None]) -> None:
        self._control = control
        self._cadence = cadence
        self._tell = tell
        self.known: State | None = None
        """The newest; it stays while the control plane is away."""
        self.news = asyncio.Event()
        """Set with every newer state; whoever acts on it clears it first."""
        self._whole = False
        """Ask for everything: the last news made no sense on top of what is known."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            known = None if self._whole else self.known
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
            except Exception as error:
                # An agent that no longer reads would serve a frozen state and call itself ready for ever.
                _log.exception("the feed could not be followed")
                self._tell(f"the feed could not be followed: {type(error).__name__}")
                self._whole = True
                await asyncio.sleep(self._cadence.retry)
                continue
            self._whole = False
            self.news.set()

    async def until(self, holds: Callable[[State], bool]) -> State:
        """The first state from now on of which ``holds`` is true."""
        while True:
            self.news.clear()
            if self.known is not None and holds(self.known):
                return self.known
            await self.news.wait()
