"""The machines below Tenon's stack: what happens to them, and whether they get over it by themselves."""

import asyncio
import json
import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from server.assembly.processes import Running
from server.workspace import Workspace

_WEIGHTS: Final = "adapter_model.safetensors"
_POLL: Final = 0.2


@dataclass(frozen=True, slots=True)
class Node:
    """One engine, its agent and the adapters on its disk."""

    agent: int
    """Process id."""
    url: str
    """Of the agent's own small face."""
    cache: Path

    def state(self) -> tuple[str | None, bool]:
        """(boot, whether it serves all that it should)"""
        try:
            with urllib.request.urlopen(f"{self.url}/state", timeout=5) as answer:  # noqa: S310 (loopback)
                said: dict[str, Any] = json.load(answer)
        except (OSError, ValueError):
            return None, False
        return said.get("boot"), said.get("status") == "ready"

    def kill(self) -> int:
        """kill -9 for all that vLLM is: its guardian and its agent have to notice. How many were hit."""
        table = _processes()
        leaders = {pid for pid, (parent, group) in table.items() if parent == self.agent and group == pid}
        victims = [pid for pid, (_, group) in table.items() if group in leaders and pid not in leaders]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(victims)

    def swap(self) -> bool:
        """Every adapter's weights become the next one's, as somebody with the node's rights could do it."""
        files = self._files()
        if len(files) < 2:
            return False
        kept = [file.read_bytes() for file in files]
        for file, other in zip(files, kept[1:] + kept[:1], strict=True):
            file.parent.chmod(0o700)
            file.unlink()
            file.write_bytes(other)
        return True

    def empty(self) -> bool:
        folders = [file.parent for file in self._files()]
        for folder in folders:
            folder.parent.chmod(0o700)
            folder.chmod(0o700)
            shutil.rmtree(folder)
        return bool(folders)

    def _files(self) -> list[Path]:
        return sorted(self.cache.glob(f"[0-9a-f]*/{_WEIGHTS}"))


def nodes_of(workspace: Workspace, running: Running) -> tuple[Node, ...]:
    found = []
    for process in running.engines:
        _, _, number = process.role.partition("-")
        cache = workspace.cache.with_name(f"{workspace.cache.name}-{number}") if number else workspace.cache
        found.append(Node(process.pid, process.url, cache))
    return tuple(found)


async def until(
    done: Callable[[], bool], *, limit: float, meanwhile: Callable[[], Awaitable[object]] | None = None
) -> float | None:
    """Seconds until ``done``; None when it was not within ``limit``."""
    began = time.monotonic()
    while not await asyncio.to_thread(done):
        if time.monotonic() - began > limit:
            return None
        if meanwhile is not None:
            await meanwhile()
        await asyncio.sleep(_POLL)
    return time.monotonic() - began


def _processes() -> dict[int, tuple[int, int]]:
    """pid -> (parent, group)"""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(path.parent.name)] = (int(fields[1]), int(fields[2]))
    return found
