"""Runs inside a process of its own (``python -I cage.py``) and never imports anything of Tenon.

Reads one JSON object from standard input: ``code``, ``tests``, ``word``, ``seconds``, ``memory``, ``strict``.
Writes ``word`` to standard output when all tests have passed, or ``open: …`` when ``strict`` and the code
could not be locked in. In namespaces of its own the code has no network, sees the file system read-only but
for a small scratch folder, and takes with it whatever it starts.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_PRIVATE_ALL = 0x44000  # MS_REC | MS_PRIVATE
_MOUNT_SETATTR, _AT_RECURSIVE, _READ_ONLY = 442, 0x8000, 1
_DEATH_SIGNAL, _NO_NEW_PRIVILEGES = 1, 38
_SCRATCH_SIZE = b"size=16m"


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "namespace")]


def main() -> None:
    asked = json.load(sys.stdin)
    trouble = lock_in(Path.cwd())
    if trouble and asked["strict"]:
        sys.stdout.write(f"open: {trouble}")
        return
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(0 if status == 0 else 1)
    _LIBC.prctl(_DEATH_SIGNAL, signal.SIGKILL)
    _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    limit(seconds=asked["seconds"], memory=asked["memory"])
    sys.exit(0 if passes(asked["code"], asked["tests"], asked["word"]) else 1)


def lock_in(folder: Path) -> str:
    """What could not be taken away from the code; empty when everything was."""
    user, group = os.getuid(), os.getgid()
    if _LIBC.unshare(_NEWUSER | _NEWNET | _NEWNS | _NEWPID | _NEWIPC):
        return f"namespaces are not allowed ({os.strerror(ctypes.get_errno())})"
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    except OSError as error:
        return f"the user cannot be mapped ({error.strerror})"
    if _LIBC.mount(b"none", b"/", None, _MS_PRIVATE_ALL, None):
        return f"mounts cannot be made private ({os.strerror(ctypes.get_errno())})"
    attributes = _MountAttributes(_READ_ONLY, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    if _LIBC.syscall(_MOUNT_SETATTR, -100, b"/", _AT_RECURSIVE, ctypes.byref(attributes), size):
        return f"the file system cannot be made read-only ({os.strerror(ctypes.get_errno())})"
    if _LIBC.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, _SCRATCH_SIZE):
        return f"there can be no scratch folder ({os.strerror(ctypes.get_errno())})"
    os.chdir(folder)
    return ""


def limit(*, seconds: int, memory: int) -> None:
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def passes(code: str, tests: str, word: str) -> bool:
    """Only tests that ran to their end count: leaving early with a good exit status is no pass."""
    out = os.dup(1)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)  # what the code prints is not read as our word
    space = {"__name__": "answer"}
    try:
        exec(compile(code, "answer", "exec"), space)  # noqa: S102 - that is what this process is for
        exec(compile(tests, "tests", "exec"), space)  # noqa: S102
    except BaseException:
        traceback.print_exc(limit=2)
        return False
    os.write(out, word.encode())
    return True


_LIBC = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    main()
