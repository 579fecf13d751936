"""Where vLLM's processes come from on a CPU: forked from one that has imported everything and done nothing.

vLLM spawns them, so that each imports the same eight seconds of Python again. Forking a process that works is
unsafe (threads, sockets, OpenMP's pool); forking one that has a single thread and nothing but modules is what
``multiprocessing``'s fork server is for. This is that server, except that it is itself forked after the
import, and that its children take the environment of whoever asks for them, as spawned ones do.
"""

import ctypes
import gc
import multiprocessing.context as contexts
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from server.settings import guard_spec_file, replace_environment, whole_environment

_PR_SET_PDEATHSIG: Final = 1
_PYTHONS: Final = ((3, 11), (3, 12))
"""Whose fork server was read: it is used below its public face."""
_OTHER_OPENMP: Final = re.compile(r"lib(iomp|omp)\d*\.so")
_CPU_LISTS: Final = ("GOMP_CPU_AFFINITY", "OMP_PLACES")
"""How vLLM says which cores a worker may use: "0 1", or "{0,1}"."""
_LONGEST: Final = 108
"""Bytes of a socket's path, with the zero at its end."""


class Child(contexts.ForkServerProcess):
    """A process that begins with the environment and the threads that spawning would have given it."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickled in this order: whatever the arguments compute finds the environment as it should be.
        return _revive, (_Surroundings(whole_environment()), type(self), vars(self).copy())


class Context(contexts.ForkServerContext):
    Process = Child


class _Server:
    """Of this process and those that come from it."""

    pid = 0


class _Surroundings:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __reduce__(self) -> tuple[Any, ...]:
        return _enter, (self._environment,)


def unable(environment: Mapping[str, str]) -> str | None:
    """Why this process must not be forked; None when it may be."""
    if sys.platform != "linux" or sys.version_info[:2] not in _PYTHONS:
        return "the fork server of this Python is not known"
    if _OTHER_OPENMP.search(environment.get("LD_PRELOAD", "")):
        return "this OpenMP cannot be told its cores after the fork"
    if (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        return f"{threads} threads run after the import"
    return None


def open_nursery() -> int:
    """Forks the server, and lets "spawn" mean it from now on, in this process and in all that come of it.
    Returns the server's process id."""
    gc.collect()
    gc.freeze()  # or the first collection in each child copies every page that holds an object
    server: Any = forkserver._forkserver
    # For a child of a child 3.11 would start another server, one that has imported nothing.
    server.ensure_running = resource_tracker.ensure_running
    contexts._concrete_contexts["spawn"] = Context()  # type: ignore[attr-defined]
    alive, keeping = os.pipe()
    listener = socket.socket(socket.AF_UNIX)
    address = _address()
    listener.bind(address)
    Path(address).chmod(0o600)
    listener.listen()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(keeping)
        _serve(listener, alive, parent)
    os.close(alive)
    listener.close()
    server._forkserver_address = address
    server._forkserver_alive_fd = keeping
    return pid


def _address() -> str:
    """In the boot's own folder, so that whoever tidies that up also takes what a killed engine leaves there;
    or, where that path is too long for a socket (unix(7)), in a temporary one. Both
    only this user may enter."""
    spec = guard_spec_file()
    if spec is not None and len(os.fsencode(inside := spec.parent / "nursery.sock")) < _LONGEST:
        return str(inside)
    address: str = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
    return address


def cores_of(value: str) -> set[int]:
    """Of a list as vLLM writes it; nothing for any other."""
    inner = value.strip().removeprefix("{").removesuffix("}")
    return {int(core) for core in re.split(r"[ ,]+", inner)} if re.fullmatch(r"[\d ,]*\d", inner) else set()


def _serve(listener: socket.socket, alive: int, parent: int) -> None:
    try:
        _die_with(parent)
        _Server.pid = os.getpid()
        forkserver.main(listener.detach(), alive, [])
    finally:
        os._exit(0)


def _enter(environment: Mapping[str, str]) -> None:
    _die_with(_Server.pid)
    replace_environment(environment)
    for named in _CPU_LISTS:
        if cores := cores_of(environment.get(named, "")):
            _bind(cores, environment.get("OMP_NUM_THREADS", ""))
            return


def _revive(_entered: None, kind: type[BaseProcess], state: dict[str, Any]) -> BaseProcess:
    process = kind.__new__(kind)
    vars(process).update(state)
    return process


def _bind(cores: set[int], threads: str) -> None:
    """OpenMP reads its variables when it is loaded, which was before the fork."""
    import torch

    os.sched_setaffinity(0, cores)  # inherited by every thread this one will start
    torch.set_num_threads(int(threads) if threads.isdecimal() else len(cores))


def _die_with(parent: int) -> None:
    """The signal comes when the parent's forking thread ends: the server has one thread, and its own parent
    forks from its first."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
