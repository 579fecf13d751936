"""What the guard has done, in a file of fixed layout that another process may read at any time.

A mapped file and not a socket: counting costs a store into memory, and the figures outlive the engine.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import Final

MAGIC: Final = b"TENONG01"
FIELDS: Final = (
    "steps",  # steps of the model with at least one token
    "checked",  # requests looked at, once a step
    "loads",  # adapters read from verified bytes for the first time
    "rereads",  # ... again after vLLM had dropped them (D3)
    "activations",  # adapters put into a slot
    "reassignments",  # slots given to another adapter while requests were running: #47724's occasion
    "audits",  # looks at the tensors themselves
    "refusals",  # loads that were turned down and did no harm
    "violations",
    "nanoseconds",  # spent in the checks of steps
)
SIZE: Final = len(MAGIC) + 8 * len(FIELDS)
SUFFIX: Final = ".counters"


class Counters:
    """One writer. A 64-bit aligned store is seen whole or not at all on what vLLM runs on."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
        try:
            os.write(descriptor, MAGIC + bytes(8 * len(FIELDS)))
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        self._cells = memoryview(self._map)[len(MAGIC) :].cast("Q")
        self._index = {name: index for index, name in enumerate(FIELDS)}

    def add(self, field: str, amount: int = 1) -> None:
        self._cells[self._index[field]] += amount

    def __getitem__(self, field: str) -> int:
        return self._cells[self._index[field]]

    def close(self) -> None:
        self._cells.release()
        self._map.close()


def read(path: Path) -> dict[str, int]:
    """Raises ValueError for a file that is none of ours."""
    data = path.read_bytes()
    if len(data) != SIZE or not data.startswith(MAGIC):
        raise ValueError(f"{path.name} holds no counters of this guard")
    return dict(zip(FIELDS, struct.unpack_from(f"={len(FIELDS)}Q", data, len(MAGIC)), strict=True))
