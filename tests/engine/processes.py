"""The processes of a vLLM, found by its port."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path


def processes(port: int) -> dict[str, int]:
    """vLLM's processes below the guardian of the engine on this port, by what they call themselves, and
    ``server``: the one that speaks HTTP, which keeps its command line."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat[1]), words
    roots = {pid for pid, (_, words) in parents.items() if f"--port {port} " in words}
    below = set(roots)
    while more := {pid for pid, (parent, _) in parents.items() if parent in below} - below:
        below |= more
    found = {parents[pid][1].split(" ")[0]: pid for pid in below if parents[pid][1].startswith("VLLM::")}
    (guardian,) = (pid for pid in roots if parents[pid][0] not in roots)
    (found["server"],) = (
        pid for pid in roots if parents[pid][0] == guardian
    )  # the others are forked from it
    return found


def command_line(port: int) -> str:
    """Of whatever was started for this port."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_bytes().replace(b"\0", b" ").decode())
    return "\n".join(words for words in found if f"--port {port} " in words)


def state_of(pid: int) -> str:
    """One letter, as the kernel says it: ``T`` is stopped; empty for a process that is gone, and for what is
    left of one that nobody has waited for."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    return "" if found in ("Z", "X") else found


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """It stands still meanwhile, and goes on afterwards if it is still there."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
