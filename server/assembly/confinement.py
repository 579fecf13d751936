"""Computing with strangers' weights in a process that can do little else.

The child has its own session, an environment of its own, no terminal, limits on time, memory and file sizes,
and dies with whoever started it. It sees no files but the libraries' and its own (see
:mod:`server.assembly.wall`) and has no network, as far as the kernel lets that be taken away:
:func:`confine` says what it did.
"""

import contextlib
import ctypes
import importlib.util
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.assembly import wall
from server.errors import ReferenceFailed

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_LARGEST_FILE: Final = 16 << 20
"""Bytes; a fingerprint has 150 kB."""


@dataclass(frozen=True, slots=True)
class Limits:
    seconds: float
    cpu_seconds: int
    memory: int
    """Bytes of address space."""


@dataclass(frozen=True, slots=True)
class Walls:
    """What a confined process cannot reach any more."""

    files: bool
    network: bool
    """All of it, or TCP: what it may read is then nobody's secret that UDP could carry away."""

    @property
    def stand(self) -> bool:
        return self.files and self.network


_PACKAGES: Final = ("registry", "trainer", "server", "router")
_SYSTEM: Final = (
    "/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf",
    "/etc/passwd", "/etc/group", "/dev/zero", "/dev/urandom", "/dev/random",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems",
    "/sys/devices/system", "/sys/kernel/mm/transparent_hugepage", "/sys/fs/cgroup",
)  # fmt: skip
"""What Python, torch and glibc read on their own; no configuration of a service and nobody's home."""


def run(module: str, arguments: Sequence[str], *, folder: Path, limits: Limits) -> None:
    """``python -m module arguments`` to its end, in ``folder``; whatever is left of it then is killed.

    Raises ReferenceFailed when it does not end well in time.
    """
    command = [sys.executable, "-I", "-m", module, *arguments]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    with (folder / "said").open("wb") as said:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            status = child.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            raise ReferenceFailed(f"not done within {limits.seconds:g} s") from None
        finally:
            _end(child)
    if status < 0:
        raise ReferenceFailed(f"ended by {signal.Signals(-status).name}: a limit of time or memory")
    if status:
        raise ReferenceFailed(f"it ended with {status}")


def confine(limits: Limits, *, read: Sequence[Path], change: Path) -> Walls:
    """For the child, before it reads anything of a stranger's. ``read``: files and folders besides the
    libraries'; ``change``: the folder that it leaves its answer in. Raises OSError."""
    for what, value in (
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (lower, lower))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    alone: bool = libc.unshare(_NEW_USER | _NEW_NET) == 0
    abi = wall.build(read=[*_libraries(), *read], change=[change, Path(os.devnull)])
    return Walls(files=abi >= 1, network=alone or abi >= 4)


def _libraries() -> list[Path]:
    """Of the packages that were installed from a checkout only their own folders: beside them may be keys."""
    found = [*map(Path, _SYSTEM), Path(sys.prefix), Path(sys.base_prefix)]
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        found += map(Path, (spec.submodule_search_locations if spec else None) or ())
    return found


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Its whole group: what it may have started must not outlive it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
