"""The thread that writes a chain: it is handed a batch at a time, and tells the loop when it is on disk.

Not a ThreadPoolExecutor: a batch needs none of its two futures, their locks and their callbacks, and a router
with one client writes a batch for each request.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

Write: TypeAlias = Callable[[bytes], tuple[int, int]]
Wrote: TypeAlias = Callable[[tuple[int, int] | Exception], None]


class Scribe:
    def __init__(self, write: Write, wrote: Wrote) -> None:
        """``write``: called in the thread. ``wrote``: told on the loop what it returned or raised."""
        self._write = write
        self._wrote = wrote
        self._inbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="records-write", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        self._inbox.put(data)

    async def stop(self) -> None:
        """After the last batch; nothing may be written any more."""
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        take, tell, wrote = self._inbox.get, self._loop.call_soon_threadsafe, self._wrote
        while (data := take()) is not None:
            try:
                found: tuple[int, int] | Exception = self._write(data)
            except Exception as error:  # whatever it is, those who wait must hear of it
                found = error
            tell(wrote, found)
